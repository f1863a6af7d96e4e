//! nginx with `sendfile`: what the kernel allows for reads of a file.

use super::{Abilities, Installed, Launch, ServerKind};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// With `open_file_cache` it opens no file for a request, but sees an append to one only when it looks again, after 60 s:
/// no server of streams can do so.
pub(crate) struct Nginx {
    pub(crate) caches_files: bool,
}

impl ServerKind for Nginx {
    fn key(&self) -> &'static str {
        if self.caches_files { "nginx" } else { "nginx-uncached" }
    }

    fn title(&self) -> &'static str {
        match self.caches_files {
            true => "nginx sendfile",
            false => "nginx sendfile, without open_file_cache",
        }
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            durable: true,
            memory: false,
            writes: false,
            stores: true,
            live: false,
            files: true,
        }
    }

    fn install(&self, _cache: &Path) -> Result<Installed> {
        let program = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"]
            .into_iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
            .context("not installed; run: apt-get install --no-install-recommends nginx-light")?;
        let output = Command::new(&program).arg("-v").output()?;
        let version = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Ok(Installed { program, version })
    }

    /// One process, so that it can be ended by its id; like the others, one core is all it gets.
    fn command(&self, installed: &Installed, launch: &Launch<'_>) -> Result<Command> {
        let (config, data, port) = (launch.config.display(), launch.data.display(), launch.port);
        let path = launch.config.join("nginx.conf");
        let cache = if self.caches_files { "max=10000" } else { "off" };
        fs::write(
            &path,
            format!(
                "daemon off;\nmaster_process off;\npid {config}/nginx.pid;\n\
                 error_log {config}/error.log;\nevents {{ worker_connections 16384; }}\n\
                 http {{\n  access_log off;\n  sendfile on;\n  tcp_nopush on;\n\
                 \x20 keepalive_requests 1000000000;\n  open_file_cache {cache};\n\
                 \x20 default_type application/octet-stream;\n\
                 \x20 client_body_temp_path {config}/body;\n  proxy_temp_path {config}/proxy;\n\
                 \x20 server {{ listen 127.0.0.1:{port}; root {data}; }}\n}}\n"
            ),
        )?;
        let mut command = Command::new(&installed.program);
        command.arg("-p").arg(launch.config).arg("-c").arg(path);
        command.arg("-e").arg(launch.config.join("error.log"));
        Ok(command)
    }
}
