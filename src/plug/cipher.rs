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
