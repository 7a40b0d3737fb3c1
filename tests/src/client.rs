//! Requests to a server that may go away.

use ureq::Agent;
use ureq::http::Request;

use crate::reply::Reply;

/// A client of one server process; cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) address: String,
    pub(crate) agent: Agent,
}

impl Client {
    /// Sends any request.
    ///
    /// # Errors
    /// If there is no whole answer, because the server went away.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Reply, ureq::Error> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = self.agent.run(request.body(body.to_vec())?)?;
        let headers = response.headers().iter();
        let headers = headers.map(|(name, value)| {
            (name.as_str().to_owned(), value.to_str().unwrap_or_default().to_owned())
        });
        Ok(Reply {
            status: response.status().as_u16(),
            headers: headers.collect(),
            body: response.body_mut().read_to_string()?,
        })
    }
}
