//! From a request to its answer.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts, RawPathParams},
    http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
use futures::future::join_all;
use millrace_crds::names::is_dns_label;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    Backend, ServeError,
    access::{Access, Api, Caller},
    api::{DecideAnswer, DecideRequest, EventsRequest, Identity},
    body,
    forwarded::{Forwarded, Question},
    json::{self, Decisions},
    limits::Limits,
    orders, page,
    problem::{
        FAILED, FORBIDDEN, INVALID, KINDS, METHOD_NOT_ALLOWED, NO_ANSWER, NOT_FOUND, NOTHING_READ, Problem,
        UNSUPPORTED_MEDIA_TYPE,
    },
    records::{self, Layout},
};
use crate::metrics::{self, Shared};

/// What all requests of a server share.
pub struct App {
    pub backend: Arc<dyn Backend>,
    pub shared: Arc<Shared>,
    pub access: Access,
    pub limits: Limits,
}

/// What a path answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Decide,
    RecentDecisions,
    Accept,
    Erase,
    Profile,
    Status,
    Tasks,
    Orders,
    Forwarded,
    Experiments,
    OpenApi,
    ProblemType,
    Health,
    Ready,
    Metrics,
}

/// All paths besides the page's files, as `openapi.json` describes them.
pub const ROUTES: &[(&str, &str, Endpoint)] = &[
    ("POST", "/v1/decisions", Endpoint::Decide),
    ("GET", "/v1/decisions/recent", Endpoint::RecentDecisions),
    ("POST", "/v1/events", Endpoint::Accept),
    ("DELETE", "/v1/users/{id}", Endpoint::Erase),
    ("GET", "/v1/profiles/{id}", Endpoint::Profile),
    ("GET", "/v1/status", Endpoint::Status),
    ("GET", "/v1/tasks", Endpoint::Tasks),
    ("PUT", "/v1/orders", Endpoint::Orders),
    ("POST", "/v1/forwarded", Endpoint::Forwarded),
    ("GET", "/v1/experiments", Endpoint::Experiments),
    ("GET", "/v1/openapi.json", Endpoint::OpenApi),
    ("GET", "/problems/{type}", Endpoint::ProblemType),
    ("GET", "/healthz", Endpoint::Health),
    ("GET", "/readyz", Endpoint::Ready),
    ("GET", "/metrics", Endpoint::Metrics),
];

impl Endpoint {
    /// Whose token it needs.
    pub fn api(self) -> Option<Api> {
        match self {
            Endpoint::Decide => Some(Api::Decisions),
            Endpoint::Accept => Some(Api::Events),
            Endpoint::RecentDecisions
            | Endpoint::Erase
            | Endpoint::Profile
            | Endpoint::Status
            | Endpoint::Tasks
            | Endpoint::Orders
            | Endpoint::Forwarded
            | Endpoint::Experiments
            | Endpoint::Metrics => Some(Api::Admin),
            Endpoint::OpenApi | Endpoint::ProblemType | Endpoint::Health | Endpoint::Ready => None,
        }
    }
}

/// Everything.
pub fn router(app: App) -> Router {
    let app = Arc::new(app);
    let mut router = Router::new();
    for (method, path, endpoint) in ROUTES {
        let app = Arc::clone(&app);
        let answer = move |request| answer(Arc::clone(&app), path, *endpoint, request);
        router = router.route(path, on(filter(method), answer));
    }
    for file in page::FILES {
        router = router.route(file.path, on(MethodFilter::GET, move || async move { page_file(file) }));
    }
    with_fallbacks(router)
}

/// `/metrics`, `/healthz` and `/readyz` alone.
pub fn pages(shared: Arc<Shared>) -> Router {
    let (metrics, ready) = (Arc::clone(&shared), shared);
    with_fallbacks(
        Router::new()
            .route("/healthz", on(MethodFilter::GET, || async { metrics::health() }))
            .route("/readyz", on(MethodFilter::GET, move || async move { metrics::readiness(&ready) }))
            .route("/metrics", on(MethodFilter::GET, move || async move { metrics::page(&metrics) })),
    )
}

fn filter(method: &str) -> MethodFilter {
    match method {
        "POST" => MethodFilter::POST,
        "PUT" => MethodFilter::PUT,
        "DELETE" => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    }
}

fn with_fallbacks(router: Router) -> Router {
    router
        .method_not_allowed_fallback(|method: Method| async move {
            // axum adds `Allow`.
            match method {
                Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
                _ => Problem::new(METHOD_NOT_ALLOWED, "see the header `Allow`").into_response(),
            }
        })
        .fallback(|| async { Problem::new(NOT_FOUND, "GET /v1/openapi.json lists the paths of the API") })
}

fn page_file(file: &page::File) -> Response {
    let headers = [
        (header::CONTENT_TYPE, file.content_type),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, page::CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, file.bytes).into_response()
}

/// `path` as declared: the request's own may hold a user's id, which is neither logged nor counted.
async fn answer(app: Arc<App>, path: &'static str, endpoint: Endpoint, request: Request<Body>) -> Response {
    let begun = Instant::now();
    let answered = dispatch(&app, endpoint, request).await;
    let response = answered.unwrap_or_else(Problem::into_response);
    let (status, took) = (response.status().as_u16(), begun.elapsed());
    app.shared.traffic.count(path, status, took);
    tracing::debug!(path, status, ?took, "answered");
    response
}

async fn dispatch(app: &App, endpoint: Endpoint, request: Request<Body>) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = match endpoint.api() {
        Some(api) => app.access.check(api, &parts.headers)?,
        None => Caller { is_admin: false },
    };
    let _room = match endpoint.api() {
        // Its own, below.
        Some(Api::Admin) if endpoint == Endpoint::Forwarded => None,
        Some(Api::Admin) => Some(app.limits.admin()?),
        _ => None,
    };
    let durable = app.limits.timeouts.durable;
    match endpoint {
        Endpoint::Decide => decide(app, caller, &parts, body).await,
        Endpoint::Accept => accept(app, &parts, body).await,
        Endpoint::Erase => {
            let user = identity(&mut parts).await?;
            in_time(durable, app.backend.erase(user)).await?;
            json_answer(StatusCode::OK, &json!({"durable": true}))
        }
        Endpoint::Profile => {
            let user = identity(&mut parts).await?;
            let profile = in_time(app.limits.timeouts.decide, app.backend.profile(user)).await?;
            json_answer(StatusCode::OK, &profile)
        }
        Endpoint::RecentDecisions => json_answer(StatusCode::OK, &app.backend.recent_decisions()),
        Endpoint::Status => json_answer(StatusCode::OK, &app.backend.status()),
        Endpoint::Tasks => json_answer(StatusCode::OK, &app.backend.tasks()),
        Endpoint::Orders => {
            let (body, _memory) = body::read(&parts, body, &app.limits).await?;
            app.backend.obey(orders::read(&body)?)?;
            json_answer(StatusCode::ACCEPTED, &app.backend.tasks())
        }
        Endpoint::Forwarded => {
            let (body, _memory) = body::read(&parts, body, &app.limits).await?;
            let question = Question::read(&body)?;
            // As many as decisions; but a withdrawal is always heard.
            let _room = match question.ask {
                Forwarded::Withdrawn { .. } => None,
                _ => Some(app.limits.deciding(1)?),
            };
            let answer = in_time(durable, app.backend.forwarded(question)).await?;
            json_answer(StatusCode::OK, &answer)
        }
        Endpoint::Experiments => json_answer(StatusCode::OK, &app.backend.experiments()),
        Endpoint::OpenApi => {
            let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")];
            Ok((headers, OPENAPI).into_response())
        }
        Endpoint::ProblemType => problem_type(&mut parts).await,
        Endpoint::Health => Ok(metrics::health().into_response()),
        Endpoint::Ready => Ok(metrics::readiness(&app.shared).into_response()),
        Endpoint::Metrics => Ok(metrics::page(&app.shared).into_response()),
    }
}

/// The description of the API (OpenAPI 3.1).
pub const OPENAPI: &str = include_str!("openapi.json");

async fn decide(app: &App, caller: Caller, parts: &Parts, body: Body) -> Result<Response, Problem> {
    let is_json = records::media_type(&parts.headers).is_none_or(|media| media == "application/json");
    if !is_json {
        return Err(Problem::new(UNSUPPORTED_MEDIA_TYPE, "send a decision's request as application/json"));
    }
    app.limits.decisions.take(0)?;
    let (body, _memory) = body::read(parts, body, &app.limits).await?;
    let decided = |request| async move {
        may_ask(caller, &request)?;
        in_time(app.limits.timeouts.decide, app.backend.decide(request)).await
    };
    match json::decisions(&body)? {
        Decisions::One(request) => {
            app.limits.decisions.take(1)?;
            let _room = app.limits.deciding(1)?;
            json_answer(StatusCode::OK, &decided(*request).await?)
        }
        Decisions::Batch(requests) => {
            let n = requests.len();
            app.limits.decisions.take(n)?;
            let _room = app.limits.deciding(n)?;
            let answers = requests.into_iter().map(|request| async move {
                match request {
                    Ok(request) => decided(request).await,
                    Err(problem) => Err(problem),
                }
                .map_or_else(|problem| Element::Problem(problem.to_json()), |answer| Element::Answer(Box::new(answer)))
            });
            json_answer(StatusCode::OK, &join_all(answers).await)
        }
    }
}

/// One of a batch's answers.
#[derive(Serialize)]
#[serde(untagged)]
enum Element {
    Answer(Box<DecideAnswer>),
    Problem(Value),
}

fn may_ask(caller: Caller, request: &DecideRequest) -> Result<(), Problem> {
    if request.explain && !caller.is_admin {
        return Err(Problem::new(FORBIDDEN, "`explain` shows a user's profile and needs the admin token"));
    }
    Ok(())
}

async fn accept(app: &App, parts: &Parts, body: Body) -> Result<Response, Problem> {
    let source = source(parts.uri.query())?;
    let layout = Layout::of(&parts.headers)?;
    app.limits.events.take(0)?;
    let (body, _memory) = body::read(parts, body, &app.limits).await?;
    let records = records::split(&body, layout)?;
    let n = records.len();
    app.limits.events.take(n)?;
    let _room = app.limits.accepting()?;
    let request = EventsRequest { source, records };
    let accepted = in_time(app.limits.timeouts.durable, app.backend.accept(request)).await?;
    if n > 0 && accepted.rejected.len() == n {
        let rejected = serde_json::to_value(&accepted.rejected).unwrap_or_default();
        return Err(Problem::new(NOTHING_READ, "each record was rejected; see `rejected`").with("rejected", rejected));
    }
    json_answer(StatusCode::ACCEPTED, &accepted)
}

/// `source=NAME`, and nothing else.
fn source(query: Option<&str>) -> Result<Option<String>, Problem> {
    let mut source = None;
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("source", name)) if source.is_none() && is_dns_label(name) => source = Some(name.to_owned()),
            _ => {
                let detail = "the only parameter is `source=NAME`, once, with a name of a source";
                return Err(Problem::new(INVALID, detail).with("field", "source"));
            }
        }
    }
    Ok(source)
}

async fn parameter(parts: &mut Parts) -> Option<String> {
    let parameters = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    parameters.iter().next().map(|(_, value)| value.to_owned())
}

async fn identity(parts: &mut Parts) -> Result<Identity, Problem> {
    let user = parameter(parts).await.and_then(|id| Identity::new(&id));
    let detail = "the user's id in the path: expected 1 to 1024 bytes of UTF-8, percent-encoded";
    user.ok_or_else(|| Problem::new(INVALID, detail).with("field", "id"))
}

async fn problem_type(parts: &mut Parts) -> Result<Response, Problem> {
    let slug = parameter(parts).await.unwrap_or_default();
    let kind = KINDS.iter().find(|kind| kind.slug == slug);
    let kind = kind.ok_or_else(|| Problem::new(NOT_FOUND, "there is no such type of problem"))?;
    let (title, status, meaning) = (kind.title, kind.status.as_u16(), kind.meaning);
    let json = json!({"type": format!("/problems/{slug}"), "title": title, "status": status, "meaning": meaning});
    json_answer(StatusCode::OK, &json)
}

/// What the backend answers, unless it takes too long.
async fn in_time<T>(limit: Duration, answer: impl Future<Output = Result<T, ServeError>>) -> Result<T, Problem> {
    match timeout(limit, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => {
            let detail =
                format!("no answer within {} s; whether the request was done is not known", limit.as_secs_f64());
            Err(Problem::new(NO_ANSWER, detail).retry_after(Duration::from_secs(1)))
        }
    }
}

fn json_answer(status: StatusCode, value: &impl Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer is not JSON");
        Problem::new(FAILED, "the server's log says more")
    })?;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
