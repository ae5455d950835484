//! Whom TLS trusts: Mozilla's list, or the certificates that the user names, as a company's network needs
//! that looks into its traffic.

use crate::{Error, Result, input};
use std::path::Path;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// The longest file of certificates.
const MAX_BYTES: u64 = 16 << 20;

/// With the certificates of a file, if one is named.
pub(super) fn trusting(file: Option<&Path>) -> Result<TlsConfig> {
    let Some(file) = file else { return Ok(TlsConfig::default()) };
    let text = input::read(file, MAX_BYTES)?;
    let certificates = parse_pem(&text).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let certificates: Vec<_> = certificates.collect();
    if certificates.is_empty() {
        let remedy = "correct SSL_CERT_FILE, or unset it";
        return Err(Error::malformed(file, "the file", "no certificate", "some in PEM", remedy));
    }
    Ok(TlsConfig::builder().root_certs(RootCerts::from(certificates)).build())
}
