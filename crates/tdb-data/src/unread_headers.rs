//! Web servers whose answers have headers that are wrong and that nobody needs.

use std::{future::Future, pin::Pin};

use object_store::{
    ClientOptions, Result,
    client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector},
};

/// Connects as the library does, and drops `Last-Modified` from answers: it is not used here, and the library refuses
/// answers in which it is no date.
#[derive(Debug)]
pub(crate) struct WithoutDates;

impl HttpConnector for WithoutDates {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        Ok(HttpClient::new(Service(ReqwestConnector::default().connect(options)?)))
    }
}

#[derive(Debug)]
struct Service(HttpClient);

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
            let mut response = self.0.execute(request).await?;
            response.headers_mut().remove("last-modified");
            Ok(response)
        })
    }
}
