//! What is done to answers before the library reads them.

use std::{future::Future, pin::Pin};

use object_store::{
    ClientOptions, Result,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
    },
};

/// Connects as the library does, and refuses a part of a file where all of it was asked for: the library takes it for
/// all of it.
#[derive(Debug)]
pub(crate) struct Connector {
    /// Drops `Last-Modified`: it is not used here, and the library refuses answers of web servers where it is no date.
    pub drop_dates: bool,
}

/// What the library says of an answer that was refused here.
pub(crate) const UNASKED_PART: &str = "the server sent a part of the file (206) though all of it was asked for";

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Service { client, drop_dates: self.drop_dates }))
    }
}

#[derive(Debug)]
struct Service {
    client: HttpClient,
    drop_dates: bool,
}

impl HttpService for Service {
    fn call<'service, 'answer>(
        &'service self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'answer>>
    where
        'service: 'answer,
        Self: 'answer,
    {
        Box::pin(async move {
            let asks_for_part = request.headers().contains_key("range");
            let mut response = self.client.execute(request).await?;
            if response.status().as_u16() == 206 && !asks_for_part {
                return Err(HttpError::new(HttpErrorKind::Unknown, std::io::Error::other(UNASKED_PART)));
            }
            if self.drop_dates {
                response.headers_mut().remove("last-modified");
            }
            Ok(response)
        })
    }
}
