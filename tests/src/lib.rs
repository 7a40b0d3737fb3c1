//! The harness of the acceptance tests: a real server process and short words for what is done
//! to it.
//!
//! [`TestServer::w`], [`q`](TestServer::q), [`qm`](TestServer::qm), [`clock`](TestServer::clock),
//! [`tick`](TestServer::tick) and [`drain`](TestServer::drain) are the notation in which the
//! requirements are written.

mod client;
mod reply;
mod server;

pub use client::Client;
pub use reply::{Reply, rows};
pub use server::{Launch, StartFailure, TestServer};
