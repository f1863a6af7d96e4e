//! Signatures, by ring.

use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::{
    hmac,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
        RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
        RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
        UnparsedPublicKey, VerificationAlgorithm,
    },
};

/// Whether `signature` over `message` is by this key with this algorithm. A key of another family verifies
/// nothing.
pub(super) fn verifies(
    algorithm: Algorithm,
    key: &DecodingKey,
    message: &[u8],
    signature: &[u8],
) -> bool {
    if key.family() != algorithm.family() {
        return false;
    }
    let rsa = |parameters| rsa(parameters, key, message, signature);
    let point = |curve| point(curve, key, message, signature);
    let mac = |hash| match key.try_get_as_bytes() {
        Ok(secret) => hmac::verify(&hmac::Key::new(hash, secret), message, signature).is_ok(),
        Err(_) => false,
    };
    match algorithm {
        Algorithm::HS256 => mac(hmac::HMAC_SHA256),
        Algorithm::HS384 => mac(hmac::HMAC_SHA384),
        Algorithm::HS512 => mac(hmac::HMAC_SHA512),
        Algorithm::RS256 => rsa(&RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => rsa(&RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => rsa(&RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => rsa(&RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => rsa(&RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => rsa(&RSA_PSS_2048_8192_SHA512),
        Algorithm::ES256 => point(&ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => point(&ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => point(&ED25519),
        // The enum may grow; what is not known verifies nothing.
        _ => false,
    }
}

fn rsa(parameters: &RsaParameters, key: &DecodingKey, message: &[u8], signature: &[u8]) -> bool {
    let DecodingKeyKind::RsaModulusExponent { n, e } = key.kind() else { return false };
    // Some issuers write the modulus with the zero byte of its signed form.
    let zeros = n.iter().take_while(|byte| **byte == 0).count();
    let n = n.get(zeros..).unwrap_or_default();
    RsaPublicKeyComponents { n, e: e.as_slice() }.verify(parameters, message, signature).is_ok()
}

fn point(
    curve: &'static dyn VerificationAlgorithm,
    key: &DecodingKey,
    message: &[u8],
    signature: &[u8],
) -> bool {
    let Ok(bytes) = key.try_get_as_bytes() else { return false };
    UnparsedPublicKey::new(curve, bytes).verify(message, signature).is_ok()
}
