//! Applications that decide for themselves who may use their streams: `cargo run --example access -- NAME`, with the name of a
//! module below, each of which says how to try it. Port 4437, or the address that is named behind it.

mod api_key;
mod bearer;
mod closures;
mod own;
mod serve;

use std::{env, process::exit, sync::Arc};

fn main() -> pingora::Result<()> {
    let guard = match env::args().nth(1).as_deref() {
        Some("api_key") => api_key::guard(),
        Some("bearer") => bearer::guard(),
        Some("closures") => closures::guard(),
        Some("own") => own::guard(Arc::default()),
        _ => {
            eprintln!("usage: access api_key|bearer|closures|own [ADDRESS:PORT]");
            exit(2);
        }
    };
    serve::serve(guard)
}
