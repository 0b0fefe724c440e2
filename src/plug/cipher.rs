//! The autokey XOR cipher and the length frame of port 9999: bytes in, bytes out.
//!
//! Source: `protocol.md` section 1. The cipher hides nothing from anybody; it is only the plugs' spelling.
//! The key of each byte is the **ciphertext** byte before it, and starts afresh with every message.

/// The key of a message's first byte.
const FIRST_KEY: u8 = 0xAB;

/// The longest body we accept, in bytes. The longest genuine reply known is 4 KiB (protocol.md 1.2).
pub const MAX_BODY: usize = 64 * 1024;

/// Bytes of the big-endian length before a message on TCP. UDP has none: the datagram is the message.
pub const HEADER: usize = 4;

/// Why a frame header was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a reply of {0} bytes was announced, more than the {MAX_BODY} any plug needs")]
pub struct TooLong(
    /// The announced length, in bytes.
    pub u32,
);

/// How the end of a reply's body is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Exactly this many bytes follow.
    Bytes(usize),
    /// Firmware of 2016 sends a zero length and closes after the body (protocol.md 1).
    UntilClose,
}

/// Encrypts a message for UDP, or the body of one for TCP.
pub fn encrypt(plain: &[u8]) -> Vec<u8> {
    let mut body = plain.to_vec();
    encrypt_in_place(&mut body);
    body
}

/// Encrypts a message and puts its length before it, ready for one write to a TCP socket.
///
/// # Panics
/// If the message is longer than 4 GiB, which no caller can build.
pub fn frame(plain: &[u8]) -> Vec<u8> {
    let length = u32::try_from(plain.len()).expect("a message is shorter than 4 GiB");
    let mut message = Vec::with_capacity(HEADER + plain.len());
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(plain);
    encrypt_in_place(&mut message[HEADER..]);
    message
}

/// Reads a frame header. Refuses an absurd length before anything is allocated for it.
pub fn body_length(header: [u8; HEADER]) -> Result<Body, TooLong> {
    match u32::from_be_bytes(header) {
        0 => Ok(Body::UntilClose),
        length if length as usize > MAX_BODY => Err(TooLong(length)),
        length => Ok(Body::Bytes(length as usize)),
    }
}

/// Decrypts a whole body where it lies.
pub fn decrypt(body: &mut [u8]) {
    let mut key = FIRST_KEY;
    for byte in body {
        let cipher = *byte;
        *byte ^= key;
        key = cipher;
    }
}

fn encrypt_in_place(plain: &mut [u8]) {
    let mut key = FIRST_KEY;
    for byte in plain {
        key ^= *byte;
        *byte = key;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// protocol.md 1.1: plain text, length, ciphertext.
    const VECTORS: [(&str, usize, &str); 9] = [
        (
            r#"{"system":{"get_sysinfo":{}}}"#,
            29,
            "d0f281f88bff9af7d5ef94b6d1b4c09fec95e68fe187e8caf08bf68bf6",
        ),
        (
            r#"{"system":{"set_relay_state":{"state":1}}}"#,
            42,
            "d0f281f88bff9af7d5ef94b6c5a0d48bf99cf091e8b7c4b0d1a5c0e2d8a381f286e793f6d4eedfa2dfa2",
        ),
        (
            r#"{"system":{"set_relay_state":{"state":0}}}"#,
            42,
            "d0f281f88bff9af7d5ef94b6c5a0d48bf99cf091e8b7c4b0d1a5c0e2d8a381f286e793f6d4eedea3dea3",
        ),
        (
            r#"{"system":{"set_relay_state":{"err_code":0}}}"#,
            45,
            "d0f281f88bff9af7d5ef94b6c5a0d48bf99cf091e8b7c4b0d1a5c0e2d8a381e496e4bbd8b7d3b694ae9ee39ee3",
        ),
        (
            r#"{"emeter":{"get_realtime":{}}}"#,
            30,
            "d0f297fa9feb8efcdee49fbddabfcb94e683e28efa93fe9bb983f885f885",
        ),
        (
            r#"{"system":{"get_sysinfo":{}},"emeter":{"get_realtime":{}}}"#,
            58,
            "d0f281f88bff9af7d5ef94b6d1b4c09fec95e68fe187e8caf08bf68ba785e08de89cf98ba993e8caadc8bce391f495f98de489eccef48ff28ff2",
        ),
        (
            r#"{"system":{"set_dev_alias":{"alias":"Büro ☃"}}}"#,
            50,
            "d0f281f88bff9af7d5ef94b6c5a0d48bef8afca3c2aec7a6d5f7cdb694f599f091e2c0fad89a59e597f8d83aa221037e037e",
        ),
        (
            r#"{"emeter":{"err_code":-1,"err_msg":"module not support"}}"#,
            57,
            "d0f297fa9feb8efcdee49fbdd8aad887e48bef8aa892bf8ea280e597e5bad7a4c3e1dbf994fb9fea86e3c3adc2b696e590e090ff8df9dba6db",
        ),
        (
            r#"{ "system":{ "get_sysinfo":null } }"#,
            35,
            "d0f0d2a1d8abdfbad7f5cfb494b6d1b4c09fec95e68fe187e8caf09eeb87ebcbb696eb",
        ),
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn the_published_vectors_byte_for_byte() {
        for (plain, length, cipher) in VECTORS {
            assert_eq!(plain.len(), length, "{plain}");
            assert_eq!(encrypt(plain.as_bytes()), bytes(cipher), "{plain}");
            let mut body = bytes(cipher);
            decrypt(&mut body);
            assert_eq!(body, plain.as_bytes(), "{plain}");
            let framed = frame(plain.as_bytes());
            assert_eq!(framed[..HEADER], (length as u32).to_be_bytes(), "{plain}");
            assert_eq!(framed[HEADER..], bytes(cipher), "{plain}");
        }
    }

    #[test]
    fn headers_are_believed_up_to_64_kib() {
        assert_eq!(body_length([0, 0, 0, 0]), Ok(Body::UntilClose));
        assert_eq!(body_length([0, 0, 0, 29]), Ok(Body::Bytes(29)));
        assert_eq!(body_length([0, 1, 0, 0]), Ok(Body::Bytes(MAX_BODY)));
        assert_eq!(body_length([0, 1, 0, 1]), Err(TooLong(65_537)));
        assert_eq!(body_length([0xff; 4]), Err(TooLong(u32::MAX)));
    }

    proptest! {
        #[test]
        fn decrypt_undoes_encrypt(plain in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut body = encrypt(&plain);
            decrypt(&mut body);
            prop_assert_eq!(body, plain);
        }

        #[test]
        fn a_frame_is_its_length_and_the_ciphertext(plain in prop::collection::vec(any::<u8>(), 1..2000)) {
            let framed = frame(&plain);
            prop_assert_eq!(body_length(framed[..HEADER].try_into().unwrap()), Ok(Body::Bytes(plain.len())));
            prop_assert_eq!(&framed[HEADER..], encrypt(&plain));
        }
    }
}
