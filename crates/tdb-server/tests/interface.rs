//! The interface around the model: who may ask, what is refused and how, what happens when there is too much to do.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

mod support;

use axum::http::{Method, StatusCode, header};
use serde_json::{Value, json};
use std::time::Duration;
use support::{Client, FakeModel, question};
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
