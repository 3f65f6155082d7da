//! Certificates from files, for `wss://` and `https://`.
//!
//! Decided here: one certificate serves for both ends. Who listens shows it to everybody, who dials if asked.

use crate::life::Failure;
use bowline_transport::Tls;
use std::fs;
use std::path::{Path, PathBuf};

/// Whom to trust and what to show, as flags.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "TLS, all files in PEM")]
pub(crate) struct Certificates {
    /// Who vouches for those we dial [default: the public roots]
    #[arg(long, value_name = "FILE")]
    tls_roots: Option<PathBuf>,

    /// What we show: a listener then speaks TLS; a dialer shows it if asked
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,

    /// The certificate's key
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,

    /// Who must vouch for those who connect to our listener
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_client_roots: Option<PathBuf>,
}

impl Certificates {
    /// What was asked for, if anything was.
    pub(crate) fn tls(&self) -> Result<Option<Tls>, Failure> {
        let Self { tls_roots, tls_certificate, tls_key, tls_client_roots } = self;
        if tls_roots.is_none() && tls_certificate.is_none() {
            return Ok(None);
        }
        let mut tls = Tls::new();
        if let Some(file) = tls_roots {
            tls = tls.roots(read(file)?).map_err(|error| why(file, &error))?;
        }
        if let (Some(certificate), Some(key)) = (tls_certificate, tls_key) {
            let (shown, secret) = (read(certificate)?, read(key)?);
            tls = tls.identity(&shown, &secret).map_err(|error| why(certificate, &error))?;
            tls = tls.server(&shown, &secret).map_err(|error| why(certificate, &error))?;
        }
        if let Some(file) = tls_client_roots {
            tls = tls.client_roots(read(file)?).map_err(|error| why(file, &error))?;
        }
        Ok(Some(tls))
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(file).map_err(|error| why(file, &error))
}

fn why(file: &Path, error: &dyn core::fmt::Display) -> Failure {
    Failure::Other(format!("{}: {error}", file.display()))
}
