//! `openapi.json` says what the server does: no path, field, limit or problem more or less.

use std::collections::BTreeSet;

use super::*;
use crate::serve::{access::Api, problem::KINDS, routes};

fn document() -> Value {
    serde_json::from_str(routes::OPENAPI).unwrap()
}

/// Whether `value` is as `schema` says: the keywords that the document uses, and no others.
fn conforms(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let check = |schema: &Value, value: &Value| conforms(document, schema, value);
    for (keyword, wanted) in schema.as_object().unwrap() {
        let number = || wanted.as_f64().unwrap();
        let most = |n: Option<usize>| n.is_none_or(|n| n as f64 <= number());
        let right = match keyword.as_str() {
            "$ref" => {
                let pointer = wanted.as_str().unwrap().strip_prefix('#').unwrap();
                check(document.pointer(pointer).unwrap_or_else(|| panic!("{pointer}")), value)?;
                true
            }
            "type" => {
                let is = |name: &Value| match name.as_str().unwrap() {
                    "string" => value.is_string(),
                    "number" => value.is_number(),
                    "integer" => value.as_f64().is_some_and(|n| n.fract() == 0.0),
                    "boolean" => value.is_boolean(),
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "null" => value.is_null(),
                    other => panic!("type {other}"),
                };
                wanted.as_array().map_or_else(|| is(wanted), |names| names.iter().any(is))
            }
            "oneOf" => wanted.as_array().unwrap().iter().filter(|way| check(way, value).is_ok()).count() == 1,
            "enum" => wanted.as_array().unwrap().contains(value),
            "const" => value == wanted,
            // Of texts in these tests a character is a byte, or they have fewer characters than bytes.
            "maxLength" => most(value.as_str().map(str::len)),
            "minLength" => value.as_str().is_none_or(|text| text.len() as f64 >= number()),
            "minimum" => value.as_f64().is_none_or(|n| n >= number()),
            "maximum" => value.as_f64().is_none_or(|n| n <= number()),
            "maxItems" => most(value.as_array().map(Vec::len)),
            "maxProperties" => most(value.as_object().map(serde_json::Map::len)),
            "items" => value.as_array().into_iter().flatten().try_for_each(|element| check(wanted, element)).is_ok(),
            "propertyNames" => value.as_object().is_none_or(|map| map.keys().all(|k| check(wanted, &json!(k)).is_ok())),
            "required" => {
                let has = |name: &Value| value.get(name.as_str().unwrap()).is_some();
                !value.is_object() || wanted.as_array().unwrap().iter().all(has)
            }
            "properties" => {
                for (name, property) in wanted.as_object().unwrap() {
                    value.get(name).map_or(Ok(()), |value| check(property, value))?;
                }
                true
            }
            "additionalProperties" => {
                let known =
                    |name: &str| schema.get("properties").is_some_and(|properties| properties.get(name).is_some());
                value.as_object().into_iter().flatten().filter(|(name, _)| !known(name)).all(
                    |(_, value)| match wanted {
                        Value::Bool(allowed) => *allowed,
                        schema => check(schema, value).is_ok(),
                    },
                )
            }
            "description" | "pattern" => true,
            other => panic!("the test does not know `{other}`"),
        };
        if !right {
            return Err(format!("{keyword}: {wanted}"));
        }
    }
    Ok(())
}

fn operation<'a>(document: &'a Value, method: &str, path: &str) -> &'a Value {
    &document["paths"][path][method.to_lowercase()]
}

/// The schema of the answer with this status.
fn answer_schema(document: &Value, method: &str, path: &str, reply: &Reply) -> Value {
    let responses = operation(document, method, path)["responses"].as_object().unwrap();
    let status = reply.status.to_string();
    let range = format!("{}XX", &status[..1]);
    let response =
        responses.get(&status).or_else(|| responses.get(&range)).unwrap_or_else(|| panic!("{path}: {reply:?}"));
    let response = match response["$ref"].as_str() {
        Some(pointer) => document.pointer(&pointer[1..]).unwrap(),
        None => response,
    };
    let media = reply.headers["content-type"].split(';').next().unwrap();
    response["content"][media]["schema"].clone()
}

#[track_caller]
fn is_described(document: &Value, method: &str, path: &str, reply: &Reply) {
    let schema = answer_schema(document, method, path, reply);
    assert!(schema.is_object(), "{method} {path}: {reply:?} is not described");
    if reply.headers["content-type"].contains("json") {
        conforms(document, &schema, &reply.json()).unwrap_or_else(|e| panic!("{method} {path}: {e}\n{}", reply.json()));
    }
}

#[test]
fn paths_methods_and_tokens_are_those_of_the_server() {
    let document = document();
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let tokens = operation["security"].as_array().unwrap().iter();
            let tokens: Vec<String> = tokens.flat_map(|token| token.as_object().unwrap().keys().cloned()).collect();
            described.insert((method.to_uppercase(), path.clone(), tokens));
        }
    }
    let tokens = |api: Option<Api>| match api {
        Some(Api::Decisions) => vec!["decisions".to_owned(), "admin".to_owned()],
        Some(Api::Events) => vec!["events".to_owned(), "admin".to_owned()],
        Some(Api::Admin) => vec!["admin".to_owned()],
        None => Vec::new(),
    };
    let routes = routes::ROUTES.iter();
    let served = routes.map(|(method, path, endpoint)| ((*method).into(), (*path).into(), tokens(endpoint.api())));
    assert_eq!(described, served.collect());
}

#[test]
fn problems_are_those_of_the_server() {
    let document = document();
    let described = document.pointer("/components/schemas/ProblemType/enum").unwrap().as_array().unwrap();
    let known: Vec<Value> = KINDS.iter().map(|kind| json!(format!("/problems/{}", kind.slug))).collect();
    assert_eq!(*described, known);
    let server = start(&Serving::default());
    let mut client = Client::new(server.address);
    for kind in KINDS {
        let reply = client.get(&format!("/problems/{}", kind.slug));
        is_described(&document, "GET", "/problems/{type}", &reply);
        assert_eq!((&reply.json()["title"], &reply.json()["meaning"]), (&json!(kind.title), &json!(kind.meaning)));
    }
}

#[test]
fn examples_are_answered_and_answers_are_as_described() {
    let document = document();
    let server = start(&Serving::default());
    let mut client = Client::new(server.address);
    let mut answered = 0;
    for (method, path, _) in routes::ROUTES {
        let operation = operation(&document, method, path);
        let mut concrete = (*path).to_owned();
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let parameter = parameter["$ref"].as_str().map_or(parameter, |at| document.pointer(&at[1..]).unwrap());
            let (name, example) = (parameter["name"].as_str().unwrap(), parameter["example"].as_str().unwrap());
            concrete = concrete.replace(&format!("{{{name}}}"), example);
        }
        let mut bodies = vec![(String::new(), String::new())];
        if let Some(content) = operation["requestBody"]["content"].as_object() {
            bodies.clear();
            for (media, described) in content {
                for (name, example) in described["examples"].as_object().unwrap() {
                    let value = &example["value"];
                    conforms(&document, &described["schema"], value).unwrap_or_else(|e| panic!("{path} {name}: {e}"));
                    let body = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    bodies.push((format!("content-type: {media}"), body));
                }
            }
        }
        for (header, body) in bodies {
            let headers: Vec<&str> = [header.as_str()].into_iter().filter(|h| !h.is_empty()).collect();
            let reply = client.request(method, &concrete, &headers, &body);
            // Only Ann has a profile.
            assert!(reply.status < 300 || *path == "/v1/profiles/{id}", "{method} {concrete} {body}: {reply:?}");
            is_described(&document, method, path, &reply);
            answered += 1;
        }
    }
    assert_eq!(answered, routes::ROUTES.len() + 2 + 2, "three requests for decisions, three for events");
    for (path, methods) in document["paths"].as_object().unwrap() {
        for operation in methods.as_object().unwrap().values() {
            for response in operation["responses"].as_object().unwrap().values() {
                examples_conform(&document, response, path);
            }
        }
    }
    examples_conform(&document, document.pointer("/components/responses/Problem").unwrap(), "Problem");
}

fn examples_conform(document: &Value, response: &Value, of: &str) {
    for described in response["content"].as_object().into_iter().flatten().map(|(_, described)| described) {
        for example in described["examples"].as_object().into_iter().flatten().map(|(_, example)| example) {
            conforms(document, &described["schema"], &example["value"]).unwrap_or_else(|e| panic!("{of}: {e}"));
        }
    }
}

#[test]
fn what_the_schema_refuses_the_server_refuses_and_what_it_takes_it_takes() {
    let document = document();
    let schema = &operation(&document, "POST", "/v1/decisions")["requestBody"]["content"]["application/json"]["schema"];
    let server = start(&Serving::default());
    let mut client = Client::new(server.address);
    let base = json!({"placement": "home"});
    let with = |field: &str, value: Value| {
        let mut body = base.clone();
        body[field] = value;
        body
    };
    let text = |n: usize| json!("x".repeat(n));
    let scalars =
        [json!(null), json!(true), json!(1), json!(-1.5), json!("x"), json!([]), json!({}), json!([1]), json!("")];
    let fields =
        ["user", "placement", "platform", "session", "attributes", "candidates", "ranking", "count", "explain", "x"];
    let mut bodies: Vec<Value> = fields.iter().flat_map(|f| scalars.iter().map(|v| with(f, v.clone()))).collect();
    bodies.extend(scalars.iter().cloned());
    bodies.extend(scalars.iter().flat_map(|v| [with("attributes", json!({"a": v})), with("candidates", json!([v]))]));
    bodies.extend(scalars.iter().flat_map(|v| [with("candidates", json!([{"id": v}])), with("ranking", json!([v]))]));
    bodies.extend(scalars.iter().map(|v| with("candidates", json!([{"id": "a", "attributes": v}]))));
    for n in [255, 256, 1024, 1025] {
        bodies.extend(["user", "session", "placement", "platform"].map(|field| with(field, text(n))));
        bodies.extend([with("candidates", json!([text(n)])), with("candidates", json!([{"id": text(n)}]))]);
        bodies.extend([with("ranking", json!([text(n)])), with("attributes", json!({"a": text(n)}))]);
        bodies.push(with("attributes", json!({"x".repeat(n): 1})));
        bodies.push(with(
            "attributes",
            (0..n).map(|i| (format!("a{i}"), json!(1))).collect::<serde_json::Map<_, _>>().into(),
        ));
    }
    for n in [1_000, 1_001] {
        bodies.extend([with("candidates", json!(vec!["a"; n])), with("ranking", json!(vec!["a"; n]))]);
    }
    bodies.extend([0.0, 1.0, 2.5, 100.0, 101.0].map(|n| with("count", json!(n))));
    bodies.extend([0, 1, 100, 101].map(|n| with("count", json!(n))));
    bodies.extend([json!(vec![&base; 100]), json!(vec![&base; 101]), json!([base, {"placement": 7}]), json!([[]])]);
    let mut taken = 0;
    for body in &bodies {
        let reply = client.post("/v1/decisions", body.to_string());
        is_described(&document, "POST", "/v1/decisions", &reply);
        // A batch is answered even if one of it is wrong; another placement is not the schema's matter.
        let is_problem =
            |json: &Value| json["status"].is_number() && !json["detail"].as_str().unwrap().contains("only `home`");
        let answer = reply.json();
        let refused = answer.as_array().map_or_else(|| is_problem(&answer), |list| list.iter().any(is_problem));
        let schema_says = conforms(&document, schema, body);
        let shown: String = body.to_string().chars().take(100).collect();
        assert_eq!(schema_says.is_err(), refused, "{shown}: {schema_says:?} {}", reply.status);
        taken += usize::from(!refused);
    }
    assert!(taken > 40 && bodies.len() - taken > 80, "{taken} of {}", bodies.len());
}

#[test]
fn problems_of_all_kinds_are_as_described() {
    let document = document();
    let server = start(&Serving::default());
    for (method, path, headers, body) in [
        ("POST", "/v1/decisions", "x: y", "{"),
        ("POST", "/v1/decisions", "content-type: text/html", "{}"),
        ("POST", "/v1/decisions", "x: y", r#"{"placement": "busy"}"#),
        ("POST", "/v1/decisions", "x: y", r#"{"placement": "broken"}"#),
        ("POST", "/v1/events", "x: y", "7"),
        ("GET", "/v1/status", "origin: http://evil.example", ""),
        ("GET", "/v1/profiles/{id}", "x: y", ""),
        ("PUT", "/v1/orders", "x: y", r#"{"formatVersion": 1, "orders": []}"#),
    ] {
        let reply = Client::new(server.address).request(method, &path.replace("{id}", "eve"), &[headers], body);
        assert!(reply.status >= 400, "{reply:?}");
        is_described(&document, method, path, &reply);
    }
}
