//! Certificates for one test: an authority of its own, and what it vouches for.

use bowline_smol::Tls;
use core::sync::atomic::{AtomicU32, Ordering};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process;

/// An authority that nobody knows.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub(crate) struct Certified {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("authority {}", next()));
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate, in PEM.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// For this machine, by name and by address.
    pub(crate) fn here(&self) -> Certified {
        self.certify(&["localhost", "127.0.0.1"], |_| ())
    }

    pub(crate) fn certify(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Certified {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        Certified { certificate, key: key.serialize_pem() }
    }
}

fn next() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// A text that another program reads; gone when this is dropped.
pub(crate) struct File(PathBuf);

impl File {
    pub(crate) fn new(text: &str) -> Self {
        let name = format!("bowline-{}-{}.pem", process::id(), next());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Trusts this authority, and shows nothing.
pub(crate) fn trust(authority: &Authority) -> Tls {
    Tls::new().roots(authority.pem()).unwrap()
}

pub(crate) fn serve(tls: Tls, certified: &Certified) -> Tls {
    tls.server(&certified.certificate, &certified.key).unwrap()
}

pub(crate) fn show(tls: Tls, certified: &Certified) -> Tls {
    tls.identity(&certified.certificate, &certified.key).unwrap()
}

/// True: it has to wait.
pub(crate) fn waits<T>(done: &io::Result<T>) -> bool {
    done.as_ref().err().is_some_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}
