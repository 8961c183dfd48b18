//! A client with the credentials, region and endpoint that the spec and the environment say.

use std::time::Duration;

use aws_config::{
    ConfigLoader, environment::EnvironmentVariableRegionProvider, meta::region::RegionProviderChain,
    profile::ProfileFileRegionProvider, retry::RetryConfig, stalled_stream_protection::StalledStreamProtectionConfig,
    timeout::TimeoutConfig,
};
use aws_sdk_s3::{
    Client,
    config::{self, Region},
};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use millrace_crds::spec::S3;

use super::OpenError;

/// Shorter than servers keep a connection that nobody uses: a request on one that is just being closed has an unknown end.
const IDLE: Duration = Duration::from_secs(10);
/// What signatures name where nobody says which region.
const ANY_REGION: &str = "us-east-1";

pub(super) async fn client(place: &S3, connect: Duration, environment: ConfigLoader) -> Result<Client, OpenError> {
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).pool_idle_timeout(IDLE).build_https();
    let environment = environment.http_client(http).region(region(place)).load().await;
    if environment.region().is_none() {
        return Err(OpenError::NoRegion { place: place.to_string() });
    }
    let mut settings = config::Builder::from(&environment)
        .force_path_style(place.path_style)
        // Only what is known to have done nothing may be sent again, which the SDK does not tell apart: see `again`.
        .retry_config(RetryConfig::disabled())
        // Requests and bodies have their times here, by their sizes.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(connect).build());
    // Never the environment's: two workers with different ones would each have a store of its own.
    let endpoint = place.endpoint.as_ref().map(|endpoint| endpoint.trim_end_matches('/').to_owned());
    settings.set_endpoint_url(endpoint);
    Ok(Client::from_conf(settings.build()))
}

/// As the spec says; otherwise as the environment does.
fn region(place: &S3) -> RegionProviderChain {
    match (&place.region, &place.endpoint) {
        (Some(region), _) => RegionProviderChain::first_try(Region::new(region.clone())),
        // An instance's metadata know nothing of another store.
        (None, Some(_)) => RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new())
            .or_else(Region::from_static(ANY_REGION)),
        (None, None) => RegionProviderChain::default_provider(),
    }
}
