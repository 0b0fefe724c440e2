//! The two questions that plugs answer without being known: datagrams out (protocol.md 6).

use crate::plug::cipher;
use crate::plug::request::GET_SYSINFO;

/// Bytes of the header before the JSON of port 20002.
pub const HEADER: usize = 16;

/// What stands in the checksum's place while the checksum is computed.
const CRC_PRESET: u32 = 0x5A6B_7C8D;

/// Any public key will do: it is for replies with encrypted parts, which nobody here reads. Its private half was thrown
/// away.
const RSA_KEY: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA5QF83XvYEKeatXWxj8dp\n\
hT9CBF3Lef4OA/fpCYnkA9vKzNpFJkxK1o27PGk8PbY9escSUsCAVcmoGnpDyTsj\n\
jmLtVgUCnUirKZNJUkDADD0MetZ6ZLfTz7fcmLIQEURDZ7+62GBSRDsHts9dM6X+\n\
He5AJu2EBQogfHd+/cWQQ3B1g778G5guHrae+qH2VrL4HKA8kaZS+McXmvVpyiPh\n\
079odELQL5iHKj69/TOD1SRivFFqxvZnkEzYOsXUfqZjE27bbRPPH9f+Gu3IZoqP\n\
BaZE5YoijIOO74CO6TgQkr+ZHnZmn2G/LDwvRFFwkAenl2Qww1CY1/j9jcM+7jX9\n\
WwIDAQAB\n\
-----END PUBLIC KEY-----\n\
";

/// The probe of port 9999: `system.get_sysinfo`, encrypted, without the length that TCP has.
pub fn sysinfo() -> Vec<u8> {
    cipher::encrypt(GET_SYSINFO)
}

/// The probe of port 20002, which plugs answer whose firmware closed port 9999. `serial` is any number.
pub fn discovery(serial: u32) -> Vec<u8> {
    let body = serde_json::json!({"params": {"rsa_key": RSA_KEY}}).to_string();
    datagram(0x11, serial, body.as_bytes())
}

/// Version 2, type 0, operation 1, length, flags, 0, serial, checksum, body; numbers in network order.
fn datagram(flags: u8, serial: u32, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("a probe is shorter than a datagram");
    let mut datagram = vec![2, 0, 0, 1];
    datagram.extend(length.to_be_bytes());
    datagram.extend([flags, 0]);
    datagram.extend(serial.to_be_bytes());
    datagram.extend(CRC_PRESET.to_be_bytes());
    datagram.extend(body);
    let crc = crc32fast::hash(&datagram);
    datagram[HEADER - 4..HEADER].copy_from_slice(&crc.to_be_bytes());
    datagram
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Both vectors of protocol.md 6.
    #[test]
    fn headers_are_the_published_ones() {
        assert_eq!(hex(&datagram(0, 0, b"")), "020000010000000000000000463cb5d3");
        let body = br#"{"params":{"rsa_key":"X"}}"#;
        let probe = datagram(0x11, 0x0102_0304, body);
        assert_eq!(hex(&probe[..HEADER]), "02000001001a110001020304cce1d1f9");
        assert_eq!(&probe[HEADER..], body);
    }

    #[test]
    fn the_key_is_a_pem_in_json() {
        let probe = discovery(7);
        assert_eq!(usize::from(u16::from_be_bytes([probe[4], probe[5]])), probe.len() - HEADER);
        let body: serde_json::Value = serde_json::from_slice(&probe[HEADER..]).unwrap();
        let key = body["params"]["rsa_key"].as_str().unwrap();
        assert!(
            key.starts_with("-----BEGIN PUBLIC KEY-----\n") && key.ends_with("\n-----END PUBLIC KEY-----\n")
        );
    }

    #[test]
    fn the_probe_of_port_9999_is_the_published_vector() {
        assert_eq!(hex(&sysinfo()), "d0f281f88bff9af7d5ef94b6d1b4c09fec95e68fe187e8caf08bf68bf6");
    }
}
