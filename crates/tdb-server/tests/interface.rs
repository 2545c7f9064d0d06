//! The interface around the model: who may ask, what is refused and how, what happens when there is too much to do.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use crate::support::{Client, FakeModel, question};
use axum::http::{Method, StatusCode, header};
use serde_json::{Value, json};
use std::time::Duration;
use tdb_server::{Limits, ServerConfig};

fn limited(change: impl FnOnce(&mut Limits)) -> ServerConfig {
    let mut config = ServerConfig::default();
    change(&mut config.limits);
    config
}

#[tokio::test]
async fn foreign_names_and_pages_are_refused() {
    let client = Client::new(FakeModel::default(), ServerConfig::default());
    for host in ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "10.0.0.1"] {
        let answer = client.get("/limits", &[(header::HOST, host)]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{host}");
        assert!(answer.message().contains(host), "{}", answer.message());
    }
    for origin in ["https://evil.example", "null", "http://localhost.evil.example"] {
        let answer = client.post_with("/batched_tdb", &question("a"), &[(header::ORIGIN, origin)]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{origin}");
        assert!(answer.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_none());
    }
    assert_eq!(client.model.asked(), 0);
    for host in ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000"] {
        assert_eq!(client.get("/limits", &[(header::HOST, host)]).await.status, StatusCode::OK, "{host}");
    }
}

#[tokio::test]
async fn pages_of_this_machine_may_read_answers_and_errors() {
    let client = Client::new(FakeModel::default(), ServerConfig::default());
    for origin in ["http://localhost:3000", "http://127.0.0.1:5173", "https://localhost"] {
        let good = client.post_with("/batched_tdb", &question("a"), &[(header::ORIGIN, origin)]).await;
        let bad = client.post_with("/batched_tdb", &json!({}), &[(header::ORIGIN, origin)]).await;
        assert_eq!((good.status, bad.status), (StatusCode::OK, StatusCode::UNPROCESSABLE_ENTITY));
        for answer in [good, bad] {
            assert_eq!(answer.header(header::ACCESS_CONTROL_ALLOW_ORIGIN), origin);
        }
        let asked = [
            (header::ORIGIN, origin),
            (header::ACCESS_CONTROL_REQUEST_METHOD, "POST"),
            (header::ACCESS_CONTROL_REQUEST_HEADERS, "content-type"),
        ];
        let preflight = client.send(Method::OPTIONS, "/batched_tdb", None, &asked).await;
        assert!(preflight.status.is_success());
        assert_eq!(preflight.header(header::ACCESS_CONTROL_ALLOW_ORIGIN), origin);
        assert_eq!(preflight.header(header::ACCESS_CONTROL_ALLOW_METHODS), "POST");
        assert_eq!(preflight.header(header::ACCESS_CONTROL_ALLOW_HEADERS), "content-type");
    }
}

#[tokio::test]
async fn bodies_of_another_form_are_refused_with_every_reason() {
    let client = Client::new(FakeModel::default(), ServerConfig::default());
    let locations = |answer: &Value| -> Vec<Value> {
        answer["detail"].as_array().unwrap().iter().map(|error| error["loc"].clone()).collect()
    };
    let broken = client.send(Method::POST, "/batched_tdb", Some(b"{\"subRequests\": [".to_vec()), &[]).await;
    assert_eq!(broken.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(locations(&broken.json()), [json!(["body", 17])]);
    assert_eq!(broken.json()["detail"][0]["type"], "value_error.jsondecode");
    for empty in [b"null".to_vec(), Vec::new()] {
        let answer = client.send(Method::POST, "/batched_tdb", Some(empty), &[]).await;
        assert_eq!(
            (answer.status, locations(&answer.json())),
            (StatusCode::UNPROCESSABLE_ENTITY, vec![json!(["body"])])
        );
    }
    let missing = client.post("/batched_tdb", &json!({ "subRequests": [{ "prompt": "a" }] })).await;
    assert_eq!(locations(&missing.json()).len(), 6);
    assert_eq!(locations(&missing.json())[0], json!(["body", "subRequests", 0, "targetTokens"]));
    let group = client.get("/force_client_code_generation?group_id=nope", &[]).await;
    assert_eq!(locations(&group.json()), [json!(["query", "group_id"])]);
    assert_eq!(client.get("/force_client_code_generation?group_id=logits", &[]).await.json(), Value::Null);
    // A number too large for any machine, and a body nested beyond reason.
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    assert_eq!(client.send(Method::POST, "/batched", Some(deep), &[]).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(client.model.asked(), 0);
}

#[tokio::test]
async fn no_body_has_more_errors_than_anybody_reads() {
    let client = Client::new(FakeModel::default(), ServerConfig::default());
    let zeros = |n: usize| format!("{{\"subRequests\":[{}0]}}", "0,".repeat(n - 1)).into_bytes();
    let long = client.send(Method::POST, "/batched_tdb", Some(zeros(900_000)), &[]).await;
    assert_eq!(long.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(long.json()["detail"].as_array().unwrap().len(), 1);
    assert_eq!(long.json()["detail"][0]["type"], "value_error.list.max_items");
    let wrong = client.send(Method::POST, "/batched_tdb", Some(zeros(1000)), &[]).await;
    assert_eq!(wrong.json()["detail"].as_array().unwrap().len(), 20);
    let key = "k".repeat(1 << 20);
    let named = json!({ "inferenceSubRequests": [{ "inferenceRequestSpec": { "prompt": "a" },
        "processingRequestSpecByName": { key: { "specType": "x".repeat(500_000) } } }] });
    let named = client.post("/batched", &named).await;
    assert!(named.status == StatusCode::UNPROCESSABLE_ENTITY && named.body.len() < 50_000, "{}", named.body.len());
}

#[tokio::test]
async fn what_is_said_twice_is_refused() {
    let client = Client::new(FakeModel::default(), ServerConfig::default());
    for twice in [
        [(header::HOST, "localhost"), (header::HOST, "localhost")],
        [(header::ORIGIN, "http://localhost"), (header::ORIGIN, "http://evil.example")],
    ] {
        let answer = client.get("/limits", &twice).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.message().contains("more than one"), "{}", answer.message());
    }
}

#[tokio::test]
async fn browsers_are_told_what_pages_may_do() {
    let client = Client::new(FakeModel::default(), ServerConfig::default());
    for path in ["/", "/docs", "/limits", "/nope"] {
        let answer = client.get(path, &[(header::ACCEPT, "text/html")]).await;
        let policy = answer.header(header::CONTENT_SECURITY_POLICY);
        assert!(policy.starts_with("default-src 'none'; script-src 'self' 'wasm-unsafe-eval'"), "{policy}");
        for (name, value) in [
            ("cross-origin-resource-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(answer.header(name), value);
        }
        assert!(answer.header("permissions-policy").contains("camera=()"));
    }
}

#[tokio::test]
async fn with_a_token_only_those_who_know_it_are_answered() {
    let config = ServerConfig { token: Some("a-token-of-many-letters".into()), ..ServerConfig::default() };
    let client = Client::new(FakeModel::default(), config);
    let refused = client.get("/limits", &[]).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(refused.message().contains("Authorization: Bearer"), "{}", refused.message());
    assert!(refused.header(header::WWW_AUTHENTICATE).starts_with("Bearer"));
    let bearer = |token: &'static str| [(header::AUTHORIZATION, token)];
    for wrong in ["Bearer", "Bearer x", "Basic a-token-of-many-letters", "a-token-of-many-letters"] {
        assert_eq!(client.get("/limits", &bearer(wrong)).await.status, StatusCode::UNAUTHORIZED, "{wrong}");
    }
    let right = bearer("Bearer a-token-of-many-letters");
    assert_eq!(client.get("/limits", &right).await.status, StatusCode::OK);
    assert_eq!(client.post_with("/batched_tdb", &question("a"), &right).await.status, StatusCode::OK);
    assert_eq!(client.post("/batched_tdb", &question("a")).await.status, StatusCode::UNAUTHORIZED);

    let form = client.get("/", &[(header::ACCEPT, "text/html")]).await;
    assert_eq!(form.status, StatusCode::UNAUTHORIZED);
    assert!(String::from_utf8_lossy(&form.body).contains("name=\"token\""));
    let wrong = client.get("/fake/tdb_alpha?token=x", &[]).await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    let link = client.get("/fake/tdb_alpha?prompt=a&token=a-token-of-many-letters", &[]).await;
    assert_eq!((link.status, link.header(header::LOCATION)), (StatusCode::SEE_OTHER, "/fake/tdb_alpha?prompt=a"));
    let cookie = link.header(header::SET_COOKIE);
    assert!(cookie.contains("HttpOnly") && !cookie.contains("many-letters"), "{cookie}");
    let sent = cookie.split(';').next().unwrap();
    assert_eq!(client.get("/limits", &[(header::COOKIE, sent)]).await.status, StatusCode::OK);
    let other_port = [(header::COOKIE, sent), (header::HOST, "localhost:8001")];
    assert_eq!(client.get("/limits", &other_port).await.status, StatusCode::UNAUTHORIZED);

    for open in ["/health", "/ready"] {
        assert_eq!(client.get(open, &[]).await.status, StatusCode::OK, "{open}");
    }
    assert_eq!(client.get("/metrics", &[]).await.status, StatusCode::UNAUTHORIZED);
    // A preflight has no credentials; what follows it has.
    let asked = [(header::ORIGIN, "http://localhost:3000"), (header::ACCESS_CONTROL_REQUEST_METHOD, "POST")];
    assert!(client.send(Method::OPTIONS, "/batched_tdb", None, &asked).await.status.is_success());
}

#[tokio::test]
async fn requests_have_ids_and_are_counted() {
    let client = Client::new(FakeModel::default(), ServerConfig::default());
    let id = header::HeaderName::from_static("x-request-id");
    assert_eq!(client.get("/limits", &[(id.clone(), "mine-1")]).await.header(&id), "mine-1");
    assert!(!client.get("/limits", &[]).await.header(&id).is_empty());
    client.clone().ask("quick").await;
    client.get("/some/unknown/path", &[]).await;
    let text = String::from_utf8(client.get("/metrics", &[]).await.body).unwrap();
    for line in [
        "tdb_requests_total{route=\"/limits\",status=\"200\"} 2",
        "tdb_requests_total{route=\"/batched_tdb\",status=\"200\"} 1",
        "tdb_requests_total{route=\"other\",status=\"404\"} 1",
        "tdb_stage_duration_seconds_count{stage=\"compute\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn small_requests_do_not_wait_behind_large_ones() {
    let client = Client::new(FakeModel::default(), limited(|limits| limits.workers = 1));
    let mut large = question("wait");
    large["subRequests"][0]["topAndBottomKForNodeTable"] = json!(100_000);
    let asking = {
        let client = client.clone();
        tokio::spawn(async move { client.post("/batched_tdb", &large).await })
    };
    client.model.until(|model| model.computing() == 1).await;
    assert_eq!(client.clone().ask("quick").await.status, StatusCode::OK);
    client.model.release();
    assert_eq!(asking.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn limits_are_told_and_kept() {
    let config = limited(|limits| {
        limits.body_bytes = 4096;
        limits.prompt_tokens = 5;
        limits.sub_requests = 2;
        limits.ablations = 1;
        limits.top_k = 10;
    });
    let client = Client::new(FakeModel::default(), config);
    let told = client.get("/limits", &[]).await.json();
    assert_eq!((&told["maxPromptTokens"], &told["maxTopK"]), (&json!(5), &json!(10)));

    let refused = async |change: &dyn Fn(&mut Value), field: &str| {
        let mut body = question("a b c");
        change(&mut body);
        let answer = client.post("/batched_tdb", &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{field}");
        assert!(answer.message().starts_with(field), "{}", answer.message());
        assert_eq!(answer.header("x-tdb-field"), field);
    };
    refused(
        &|body| body["subRequests"][0]["topAndBottomKForNodeTable"] = json!(11),
        "subRequests[0].topAndBottomKForNodeTable",
    )
    .await;
    refused(&|body| body["subRequests"][0]["prompt"] = json!("a b c d e f"), "subRequests[0].prompt").await;
    refused(&|body| body["subRequests"][0]["prompt"] = json!("x".repeat(2000)), "subRequests[0].prompt").await;
    refused(
        &|body| {
            let node =
                json!({ "nodeType": "mlp_neuron", "tensorIndices": [0, 0], "layerIndex": 0, "passType": "forward" });
            let ablation = json!({ "nodeIndex": node, "value": 0 });
            body["subRequests"][0]["nodeAblations"] = json!([ablation, ablation]);
        },
        "subRequests[0].nodeAblations",
    )
    .await;
    refused(
        &|body| {
            let side = body["subRequests"][0].clone();
            body["subRequests"] = json!([side, side, side]);
        },
        "subRequests",
    )
    .await;
    let large = client.post("/batched_tdb", &question(&"x".repeat(5000))).await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(large.message().contains("/limits"));
    assert_eq!(client.model.asked(), 0);
    assert_eq!(client.post("/batched_tdb", &question("a b c d e")).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_answers_at_once() {
    let client = Client::new(
        FakeModel::default(),
        limited(|limits| {
            limits.workers = 1;
            limits.queue_length = 1;
        }),
    );
    let computing = tokio::spawn(client.clone().ask("wait"));
    client.model.until(|model| model.computing() == 1).await;
    let waiting = tokio::spawn(client.clone().ask("wait"));
    // The second one takes its place as soon as its handler runs; until then the third would be admitted in its stead.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let refused = client.clone().ask("quick").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    let seconds: u64 = refused.header(header::RETRY_AFTER).parse().unwrap();
    assert!((1..=120).contains(&seconds));
    assert!(refused.message().contains("busy"));
    assert_eq!(client.get("/limits", &[]).await.status, StatusCode::OK, "what computes nothing is answered meanwhile");
    client.model.release();
    assert_eq!(computing.await.unwrap().status, StatusCode::OK);
    assert_eq!(waiting.await.unwrap().status, StatusCode::OK);
    assert_eq!(client.clone().ask("quick").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_stops_the_work() {
    for path in ["/batched_tdb", "/batched_tdb/stream"] {
        let client = Client::new(FakeModel::default(), limited(|limits| limits.workers = 1));
        let asking = tokio::spawn(client.clone().post_to(path, "wait"));
        client.model.until(|model| model.computing() == 1).await;
        asking.abort();
        client.model.until(|model| model.cancelled() == 1).await;
        // The worker is free again.
        assert_eq!(client.clone().ask("quick").await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_nobody_reads_any_more_stops_the_work() {
    let client = Client::new(FakeModel::default(), ServerConfig::default());
    let response = client.raw("/batched_tdb/stream", &question("tokens, then wait")).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!((client.model.computing(), client.model.cancelled()), (1, 0));
    drop(response);
    client.model.until(|model| model.cancelled() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_computes_for_ever() {
    let client = Client::new(FakeModel::default(), limited(|limits| limits.time = Duration::from_millis(50)));
    let answer = client.clone().ask("wait").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.message().contains("longer than"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_is_one_requests_fault() {
    let client = Client::new(FakeModel::default(), limited(|limits| limits.workers = 1));
    let answer = client.clone().ask("panic").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.message(), "Unhandled server exception");
    assert_eq!(client.clone().ask("quick").await.status, StatusCode::OK);
    let refused = client.clone().ask("refuse").await;
    assert_eq!((refused.status, refused.message().as_str()), (StatusCode::BAD_REQUEST, "that cannot be"));
    let stream = client.clone().post_to("/batched_tdb/stream", "refuse").await;
    assert_eq!(stream.status, StatusCode::BAD_REQUEST, "before its first event a stream is refused like any request");
}

#[tokio::test]
async fn without_a_model_it_says_so() {
    let client = Client::without_model();
    for (path, body) in [("/model_info", None), ("/batched_tdb", Some(question("a")))] {
        let body = body.map(|body: Value| body.to_string().into_bytes());
        let answer = client.send(Method::POST, path, body, &[]).await;
        assert_eq!(answer.status, StatusCode::CONFLICT);
        assert!(answer.message().contains("without a model"));
    }
    assert_eq!(client.get("/info", &[]).await.json()["model"], Value::Null);
}

#[tokio::test]
async fn programs_get_json_and_people_get_pages() {
    let client = Client::new(FakeModel::default(), ServerConfig::default());
    assert_eq!(client.get("/", &[]).await.json(), json!({ "Hello": "World" }));
    assert_eq!(client.get("/", &[(header::ACCEPT, "*/*")]).await.json(), json!({ "Hello": "World" }));
    let browser = [(header::ACCEPT, "text/html,application/xhtml+xml,*/*;q=0.8")];
    for (path, status) in [
        ("/", StatusCode::OK),
        ("/gpt2-small/tdb_alpha?prompt=a", StatusCode::OK),
        ("/gpt2-small/mlp_neuron/2/507", StatusCode::OK),
        ("/gpt2-small/mlp_neurn/2/507", StatusCode::NOT_FOUND),
        ("/nope", StatusCode::NOT_FOUND),
        ("/docs", StatusCode::OK),
    ] {
        let page = client.get(path, &browser).await;
        assert_eq!(page.status, status, "{path}");
        assert!(page.header(header::CONTENT_TYPE).starts_with("text/html"), "{path}");
    }
    let missing = client.get("/nope", &[]).await;
    assert_eq!((missing.status, missing.json()), (StatusCode::NOT_FOUND, json!({ "message": "Not Found" })));
    let wrong = client.get("/model_info", &[]).await;
    assert_eq!(
        (wrong.status, wrong.json()),
        (StatusCode::METHOD_NOT_ALLOWED, json!({ "message": "Method Not Allowed" }))
    );
}

#[tokio::test]
async fn every_route_is_in_the_document() {
    let client = Client::new(FakeModel::default(), ServerConfig::default());
    let document = client.get("/openapi.json", &[]).await.json();
    for (path, method, id) in [
        ("/", "get", "hello_world-read_root"),
        ("/batched_tdb", "post", "inference-batched_tdb"),
        ("/batched_tdb/stream", "post", "inference-batched_tdb_stream"),
        ("/neuron_record", "post", "read-neuron_record"),
        ("/explain", "post", "explainer-explain"),
        ("/limits", "get", "info-limits"),
        ("/health", "get", "operation-health"),
        ("/ready", "get", "operation-ready"),
        ("/metrics", "get", "operation-metrics"),
    ] {
        assert_eq!(document["paths"][path][method]["operationId"], id);
    }
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
}
