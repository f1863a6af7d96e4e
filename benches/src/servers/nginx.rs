//! nginx with `sendfile`: what the kernel allows for reads of a file.

use super::{Abilities, Installed, Launch, ServerKind};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) struct Nginx;

impl ServerKind for Nginx {
    fn key(&self) -> &'static str {
        "nginx"
    }

    fn title(&self) -> &'static str {
        "nginx sendfile"
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
        fs::write(
            &path,
            format!(
                "daemon off;\nmaster_process off;\npid {config}/nginx.pid;\n\
                 error_log {config}/error.log;\nevents {{ worker_connections 16384; }}\n\
                 http {{\n  access_log off;\n  sendfile on;\n  tcp_nopush on;\n\
                 \x20 keepalive_requests 1000000000;\n  open_file_cache max=10000;\n\
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
