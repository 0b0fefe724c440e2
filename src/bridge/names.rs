//! Topic names of plugs.

use deunicode::deunicode;

/// The longest name, in characters: room for a base topic before it and an attribute after it.
const LONGEST: usize = 64;

/// The first level below the base topic that belongs to the bridge itself.
pub const RESERVED: &str = "bridge";

/// Turns any alias into a topic name of `[a-z0-9_-]`, or `None` when nothing of it can be written so.
///
/// ```
/// use kasa2mqtt::bridge::names::slug;
/// assert_eq!(slug("Büro ☕ / Lampe").as_deref(), Some("buro-coffee-lampe"));
/// assert_eq!(slug("+/#"), None);
/// ```
pub fn slug(alias: &str) -> Option<String> {
    let mut slug = String::new();
    for letter in deunicode(alias).chars() {
        match letter.to_ascii_lowercase() {
            letter @ ('a'..='z' | '0'..='9' | '_') => slug.push(letter),
            _ if slug.ends_with('-') || slug.is_empty() => {}
            _ => slug.push('-'),
        }
        if slug.len() == LONGEST {
            break;
        }
    }
    let slug = slug.trim_end_matches('-');
    // Commands to twelve hex digits are for the plug of that MAC.
    if slug.len() == 12 && slug.chars().all(|letter| letter.is_ascii_hexdigit()) {
        return Some(format!("plug-{slug}"));
    }
    (!slug.is_empty() && slug != RESERVED).then(|| slug.to_string())
}

/// Whether a text that somebody else wrote can be a plug's name in topics.
pub fn is_name(text: &str) -> bool {
    let fits = |letter| matches!(letter, 'a'..='z' | '0'..='9' | '_' | '-');
    !text.is_empty() && text.len() <= LONGEST && text != RESERVED && text.chars().all(fits)
}

/// The name with the last four digits of a MAC, for the second plug of one alias. `id` has twelve hex digits.
pub fn with_digits(slug: &str, id: &str) -> String {
    ending(slug, id.get(8..).unwrap_or(id))
}

/// The name with all digits of a MAC that its vendor gives out one by one, where not all other names are known.
pub fn with_more_digits(slug: &str, id: &str) -> String {
    ending(slug, id.get(6..).unwrap_or(id))
}

fn ending(slug: &str, digits: &str) -> String {
    let mut name: String = slug.chars().take(LONGEST - 1 - digits.len()).collect();
    name.push('-');
    name + digits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn aliases_become_names_people_recognise() {
        for (alias, name) in [
            ("Desk lamp", Some("desk-lamp")),
            ("  Desk   lamp!! ", Some("desk-lamp")),
            ("TP-LINK_Smart Plug_577E", Some("tp-link_smart-plug_577e")),
            ("Küche", Some("kuche")),
            ("лампа", Some("lampa")),
            ("客厅灯", Some("ke-ting-deng")),
            ("", None),
            (" \u{200f}\u{202e} ", None),
            ("Bridge", None),
            ("50C7BF010203", Some("plug-50c7bf010203")),
        ] {
            assert_eq!(slug(alias).as_deref(), name, "{alias}");
        }
    }

    proptest! {
        #[test]
        fn any_alias_is_a_safe_topic_level_or_nothing(alias in any::<String>()) {
            if let Some(name) = slug(&alias) {
                prop_assert!(is_name(&name), "{name}");
                prop_assert!(is_name(&with_digits(&name, "50c7bf010203")));
                prop_assert!(is_name(&with_more_digits(&name, "50c7bf010203")));
            }
        }
    }
}
