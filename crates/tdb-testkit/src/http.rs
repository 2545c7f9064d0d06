//! Just enough of an HTTP/1.1 client to ask a local server: one connection a request, no TLS, no redirects.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A server's answer.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Sends a request and reads the whole answer. A body goes as JSON unless `headers` name another content type.
///
/// # Errors
/// When the server cannot be reached, is silent for `timeout`, or does not speak HTTP.
pub fn request(
    server: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
    timeout: Duration,
) -> Result<Response> {
    let mut stream = TcpStream::connect_timeout(&server, timeout).with_context(|| format!("cannot reach {server}"))?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.set_nodelay(true)?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    let mut add = |name: &str, value: &str| head.push_str(&format!("{name}: {value}\r\n"));
    let given = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    headers.iter().for_each(|(n, v)| add(n, v));
    if !given("host") {
        add("host", &server.to_string());
    }
    if body.is_some() && !given("content-type") {
        add("content-type", "application/json");
    }
    if body.is_some() || method != "GET" {
        add("content-length", &body.map_or(0, <[u8]>::len).to_string());
    }
    head.push_str("\r\n");
    let mut message = head.into_bytes();
    message.extend_from_slice(body.unwrap_or_default());
    // A server may answer and close before it has read a large body: the answer counts, not the broken pipe.
    let sent = stream.write_all(&message);
    match read(&mut BufReader::new(stream)) {
        Ok(response) => Ok(response),
        Err(error) => {
            sent.context("while sending")?;
            Err(error)
        }
    }
}

fn read(stream: &mut impl BufRead) -> Result<Response> {
    let line = line(stream)?;
    let status = line.strip_prefix("HTTP/1.1 ").or(line.strip_prefix("HTTP/1.0 "));
    let status = status.and_then(|s| s.get(..3)?.parse().ok()).with_context(|| format!("not HTTP: {line:?}"))?;
    let mut headers = Vec::new();
    loop {
        let line = self::line(stream)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').with_context(|| format!("not a header: {line:?}"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut response = Response { status, headers, body: Vec::new() };
    if response.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        loop {
            let size = self::line(stream)?;
            let digits = size.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(digits, 16).with_context(|| format!("not a chunk: {size:?}"))?;
            let read = stream.take(size).read_to_end(&mut response.body)?;
            if read as u64 != size {
                bail!("the answer breaks off");
            }
            self::line(stream)?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = response.header("content-length") {
        let length: u64 = length.parse().with_context(|| format!("not a length: {length:?}"))?;
        let read = stream.take(length).read_to_end(&mut response.body)?;
        if read as u64 != length {
            bail!("the answer breaks off after {read} of {length} bytes");
        }
    } else {
        stream.read_to_end(&mut response.body)?;
    }
    Ok(response)
}

fn line(stream: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line).context("no answer")? == 0 {
        bail!("the connection was closed without an answer");
    }
    Ok(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_end_where_their_framing_says() {
        let mut plain: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\nX-A: b\r\n\r\nabcdef";
        let response = read(&mut plain).unwrap();
        assert_eq!((response.status, response.body.as_slice(), response.header("x-a")), (404, &b"abc"[..], Some("b")));
        let mut chunked: &[u8] =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n";
        assert_eq!(read(&mut chunked).unwrap().body, b"abcde");
        let mut short: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc";
        assert!(read(&mut short).is_err());
    }
}
