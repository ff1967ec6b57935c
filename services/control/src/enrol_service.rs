//! `EnrolService`: gives edges their certificates.

use crate::admission::{Admission, Call};
use crate::methods::ENROL;
use crate::metrics::{EnrolmentLabel, Metrics};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tidegate_access::{Access, AccessError, Edge, Enrolling, Enrolment, Principal, Signed};
use tidegate_gate::now_ms;
use tidegate_proto::v1;
use tidegate_runtime::error_line;
use tonic::{Request, Response, Status};

/// Gives edges their certificates.
pub(crate) struct EnrolApi {
    /// Signs, and uses tokens up.
    pub access: Arc<Access>,
    /// Lets edges and tokens in.
    pub admission: Admission,
    /// What is counted.
    pub metrics: Metrics,
}

#[tonic::async_trait]
impl v1::enrol_service_server::EnrolService for EnrolApi {
    async fn enrol(&self, request: Request<v1::EnrolRequest>) -> Result<Response<v1::EnrolResponse>, Status> {
        let v1::EnrolRequest { site, node, .. } = request.get_ref();
        let asked = format!("a certificate for edge/{site}/{node}");
        let call = self.admission.admit(&request, ENROL, "", asked).await?;
        let giving = Giving {
            enrolment: self.access.enrolment().cloned(),
            admission: self.admission.clone(),
            metrics: self.metrics.clone(),
        };
        // To its end, also when the caller no longer waits: a token that is used up stands in the audit.
        let given = tokio::spawn(giving.give(call, request.into_inner()));
        given.await.unwrap_or_else(|_| Err(Status::internal("the enrolment was cut off"))).map(Response::new)
    }
}

/// One certificate on its way.
struct Giving {
    enrolment: Option<Arc<Enrolment>>,
    admission: Admission,
    metrics: Metrics,
}

impl Giving {
    async fn give(self, mut call: Call, request: v1::EnrolRequest) -> Result<v1::EnrolResponse, Status> {
        let v1::EnrolRequest { site, node, certificate_request } = request;
        let signed = match self.signed(&call.caller.principal, site, node, certificate_request).await {
            Ok(signed) => signed,
            Err(status) => {
                self.count("refused");
                return Err(self.admission.deny(call, status).await);
            }
        };
        let until = UNIX_EPOCH + Duration::from_millis(u64::try_from(signed.not_after_ms).unwrap_or(0));
        let until = humantime::format_rfc3339_seconds(until);
        call.record.result = format!("certificate {} was given out, until {until}", signed.serial);
        // One that nobody could look up is not handed out.
        let renewed = matches!(call.caller.principal, Principal::Edge(_));
        if let Err(status) = self.admission.audit().write(call.record).await {
            self.count("refused");
            let lost = if renewed { "" } else { "; the token is used up all the same: make another" };
            return Err(Status::unavailable(format!("{}{lost}", status.message())));
        }
        self.count(if renewed { "renewed" } else { "given" });
        Ok(v1::EnrolResponse { certificate_pem: signed.certificate_pem, not_after_ms: signed.not_after_ms })
    }

    /// The certificate, when the caller may have it. A token is used up then.
    async fn signed(&self, caller: &Principal, site: String, node: String, request: Vec<u8>) -> Result<Signed, Status> {
        let Some(enrolment) = self.enrolment.clone() else {
            return Err(Status::failed_precondition(
                "this control gives out no certificates; set [access.enrolment], or make them with your own authority",
            ));
        };
        let token = match caller {
            Principal::Enrolling(Enrolling { site: of_site, node: of_node, token, .. })
                if (of_site, of_node) == (&site, &node) =>
            {
                Some(token.clone())
            }
            Principal::Edge(Edge { site: Some(of_site), node: Some(of_node), .. })
                if (of_site, of_node) == (&site, &node) =>
            {
                None
            }
            Principal::Enrolling(Enrolling { site, node, .. })
            | Principal::Edge(Edge { site: Some(site), node: Some(node), .. }) => {
                let own = format!("edge/{site}/{node}");
                return Err(Status::permission_denied(format!("you may have a certificate for {own} only")));
            }
            Principal::Edge(_) | Principal::Person(_) => {
                return Err(Status::permission_denied("nobody has proven to be this edge"));
            }
        };
        let signing = tokio::task::spawn_blocking(move || {
            let now_ms = now_ms();
            // Signed first: a request that cannot be signed leaves the token as it is.
            let signed = enrolment.sign(&request, &site, &node, now_ms)?;
            token.map_or(Ok(()), |id| enrolment.use_up(&id, now_ms))?;
            Ok(signed)
        });
        let signed = signing.await.map_err(|_| Status::internal("the signing was cut off"))?;
        signed.map_err(|error| refusal(&error))
    }

    fn count(&self, result: &'static str) {
        self.metrics.enrolments.get_or_create(&EnrolmentLabel { result }).inc();
    }
}

/// What the caller is told: paths of control's own files stay in its log.
fn refusal(error: &AccessError) -> Status {
    match error {
        AccessError::NewCertificate { .. } => Status::invalid_argument(error.to_string()),
        AccessError::SpentToken { .. } => Status::permission_denied(error.to_string()),
        AccessError::NoToken { .. } => Status::permission_denied("the token is not there any more"),
        AccessError::Write { .. } => {
            tracing::error!(error = error_line(error), "a token for enrolment could not be used up");
            let why =
                "control cannot write its file of tokens, so that the token would count twice; nothing was given out";
            Status::failed_precondition(why)
        }
        _ => {
            tracing::error!(error = error_line(error), "a certificate for an edge could not be signed");
            Status::failed_precondition("control cannot use its authority for edges; its log says why")
        }
    }
}
