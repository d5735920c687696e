//! `serve`: what runs beside clusters and in labs, in the foreground and until it is ended.

use testbed::service::discovery::DiscoveryServer;
use testbed::service::dns::DnsServer;

use crate::cli::{Serve, ServeArgs};
use crate::error::{Error, ExitCode};
use crate::runtime::runtime;

/// Runs `serve`.
///
/// # Errors
/// The address is taken, or what is to be served cannot be read.
pub fn run(args: &ServeArgs) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        match &args.what {
            Serve::Dns { address, file } => {
                let server = DnsServer::start_from_file(*address, file)
                    .await
                    .map_err(|error| Error::because("the DNS server does not start", error))?;
                server
                    .run()
                    .await
                    .map_err(|source| Error::because("the DNS server ended", source))?;
            }
            Serve::Discovery {
                address, backend, ..
            } => {
                let backends = std::slice::from_ref(backend);
                let _server = DiscoveryServer::start(*address, backends, None)
                    .await
                    .map_err(|error| {
                        Error::because("the discovery service does not start", error)
                    })?;
                std::future::pending::<()>().await;
            }
        }
        Ok(ExitCode::Ok)
    })
}
