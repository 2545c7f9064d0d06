//! Asking: one question at a time, streamed where the server can, superseded by the next.

use std::sync::Arc;

use leptos::prelude::*;
use tdb_api::page::PageState;
use tdb_api::routes::{BatchedTdb, BatchedTdbStream};
use tdb_api::stream::{
    Fold, FoldError, FoldEvents, Folded, ProgressPass, TOP_K_COMPONENTS, TOP_OUTPUT_TOKEN_LOGITS, TdbEvent,
};
use tdb_api::wire::FieldPath;
use tdb_api::{BatchedResponse, BatchedTdbRequest, NodeIndex, TokenRef};

use super::{KEPT, RunRecord, Session};
use crate::answer::Answer;
use crate::client::{self, Abort, Kind, Problem};
use crate::dom;
use crate::format;
use crate::names;
use crate::signals::Change;
use crate::tasks::spawn;

/// Parts that the page can be drawn from; the others fill in when they come.
const NEEDED: [&str; 2] = [TOP_K_COMPONENTS, TOP_OUTPUT_TOKEN_LOGITS];

/// How far a pass of one side has come.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    side: usize,
    pass: ProgressPass,
    layer: usize,
    of: usize,
}

/// A question under way.
#[derive(Clone, Debug, PartialEq)]
pub struct Busy {
    pub id: u32,
    pub since: f64,
    /// `None` until the server has told.
    pub stage: Option<Stage>,
    pub sides: usize,
}

impl Busy {
    /// The stage in words.
    pub fn words(&self) -> String {
        let Some(stage) = &self.stage else { return "Running…".into() };
        let side = match (self.sides, stage.side) {
            (0 | 1, _) => "",
            (_, 0) => ", left",
            _ => ", right",
        };
        let pass = match stage.pass {
            ProgressPass::Forward => "Forward pass",
            ProgressPass::Backward => "Backward pass",
            ProgressPass::Readings => "Token lists",
        };
        format!("{pass}{side} {}/{}", stage.layer, stage.of)
    }
}

/// The field that a sentence of the reference's server is about: it names the token, not its place.
fn field_of_reference_sentence(message: &str, page: &PageState) -> Option<FieldPath> {
    let quoted = message.split(" decoded to [").next().filter(|q| q.len() < message.len())?;
    let token = quoted.trim_matches(['\'', '"']);
    let sides = std::iter::once(&page.left).chain(page.right.as_ref());
    sides.enumerate().find_map(|(side, state)| {
        let place = |list: &[TokenRef], name: &str| {
            let at = list.iter().position(|t| t.text() == token)?;
            Some(FieldPath::of("subRequests").index(side).key(name).index(at))
        };
        place(&state.target_tokens, "targetTokens").or_else(|| place(&state.distractor_tokens, "distractorTokens"))
    })
}

impl Session {
    /// Asks for the answer to the present question; a kept one serves unless `again`.
    pub(super) fn ask(self, again: bool) {
        let page = self.page.get_untracked();
        let id = self.next.get_value();
        self.next.set_value(id + 1);
        // Dropping the last one's handle cancels it.
        self.abort.set_value(Abort::new());
        self.problem.set(None);
        let known = self.request_now(&page);
        if !again
            && let Some(Ok(request)) = &known
            && let Some(answer) = self.kept(request)
        {
            self.busy.set(None);
            self.server.busy.set(false);
            self.show(id, page, answer);
            return;
        }
        let since = dom::now();
        self.busy.set(Some(Busy { id, since, stage: None, sides: page.to_request().sub_requests.len() }));
        self.server.busy.set(true);
        spawn(async move {
            let request = match known {
                Some(request) => request,
                None => self.request(&page).await,
            };
            if !self.is_present(id) {
                return;
            }
            let outcome = match request.map(Arc::new) {
                Ok(request) => self.fetch(id, &page, &request).await.and_then(|folded| read(folded, &request)),
                Err(problem) => Err(problem),
            };
            if !self.is_present(id) {
                return;
            }
            self.server.busy.set(false);
            self.busy.set(None);
            match outcome {
                Ok(answer) => self.answered(id, page, Arc::new(answer), dom::now() - since),
                Err(problem) if problem.kind == Kind::Aborted => {}
                Err(problem) => self.refused(problem, &page),
            }
        });
    }

    /// A question as a request for other programs.
    pub fn request_for(self, page: &PageState) -> BatchedTdbRequest {
        self.request_now(page).and_then(Result::ok).unwrap_or_else(|| page.to_request())
    }

    /// The request, unless it has to be asked first how many tokens two prompts have.
    fn request_now(self, page: &PageState) -> Option<Result<BatchedTdbRequest, Problem>> {
        match &page.right {
            None => Some(Ok(page.to_request())),
            Some(right) => {
                let lens = self.tokens.known_counts([&page.left.prompt, &right.prompt])?;
                Some(page.to_request_for(lens).map_err(|node| no_partner(&node)))
            }
        }
    }

    /// The request. Where nothing can tell how many tokens two prompts have, they are taken to have as many.
    async fn request(self, page: &PageState) -> Result<BatchedTdbRequest, Problem> {
        let right = page.right.as_ref().map(|right| right.prompt.clone()).unwrap_or_default();
        match self.tokens.counts([page.left.prompt.clone(), right]).await {
            Some(lens) => page.to_request_for(lens).map_err(|node| no_partner(&node)),
            None => Ok(page.to_request()),
        }
    }

    fn answered(self, id: u32, page: PageState, answer: Arc<Answer>, ms: f64) {
        self.keep(answer.clone());
        let side = |i: usize| answer.sides.get(i);
        let record = RunRecord {
            id,
            page: page.clone(),
            loss: [0, 1].map(|i| side(i).and_then(|s| s.loss)),
            activation: [0, 1].map(|i| side(i).and_then(|s| s.activation)),
            ms,
        };
        self.runs.change(|runs| runs.push(record));
        self.notices.speak(format!("{} nodes in {}.", answer.rows.len(), format::duration(ms)));
        self.show(id, page, answer);
    }

    fn refused(self, mut problem: Problem, page: &PageState) {
        self.server.lost(&problem);
        problem.field = problem.field.take().or_else(|| field_of_reference_sentence(&problem.message, page));
        self.problem.set(Some(problem));
    }

    fn show(self, id: u32, page: PageState, answer: Arc<Answer>) {
        self.asked.set(Some(page));
        self.generation.set(id);
        self.answer.set(answer);
    }

    /// Stops the question under way; the old answer stands.
    pub fn cancel(self) {
        self.next.update_value(|n| *n += 1);
        self.abort.set_value(None);
        self.busy.set(None);
        self.server.busy.set(false);
        self.notices.speak("Cancelled.");
    }

    fn is_present(self, id: u32) -> bool {
        self.next.try_get_value() == Some(id + 1)
    }

    fn kept(self, request: &BatchedTdbRequest) -> Option<Arc<Answer>> {
        self.kept.with_value(|kept| kept.iter().find(|answer| *answer.request == *request).cloned())
    }

    fn keep(self, answer: Arc<Answer>) {
        self.kept.update_value(|kept| {
            kept.retain(|old| old.request != answer.request);
            if kept.len() >= KEPT {
                kept.remove(0);
            }
            kept.push(answer);
        });
    }

    async fn fetch(self, id: u32, page: &PageState, request: &Arc<BatchedTdbRequest>) -> Result<Folded, Problem> {
        let signal = || self.abort.with_value(|a| a.as_ref().map(Abort::signal));
        let mut fold = Fold::new(request.sub_requests.len());
        let mut failed = None;
        let streamed = client::stream::<BatchedTdbStream>(request, signal(), |event| {
            if self.is_present(id) && failed.is_none() {
                failed = self.hear(id, event, &mut fold, page, request).err();
            }
        })
        .await;
        match (streamed, failed) {
            (Ok(()), None) => fold.finish().map_err(Problem::not_added_up),
            (Ok(()), Some(error)) => Err(Problem::not_added_up(error)),
            (Err(problem), _) if problem.is_missing_route() && self.is_present(id) => {
                let response: BatchedResponse = client::call::<BatchedTdb>(request, signal()).await?;
                Ok(Folded { response, ..Folded::default() })
            }
            (Err(problem), _) => Err(problem),
        }
    }

    /// Takes one event, and shows the answer when it can be drawn for the first time.
    fn hear(
        self,
        id: u32,
        event: TdbEvent,
        fold: &mut Fold,
        page: &PageState,
        request: &Arc<BatchedTdbRequest>,
    ) -> Result<(), FoldError> {
        if let TdbEvent::Progress { side, pass, layer, n_layers } = event {
            self.busy.change(|busy| {
                if let Some(busy) = busy.as_mut().filter(|b| b.id == id) {
                    busy.stage = Some(Stage { side, pass, layer, of: n_layers });
                }
            });
            return Ok(());
        }
        let was_usable = fold.has(&NEEDED);
        fold.add(event)?;
        if !was_usable
            && fold.has(&NEEDED)
            && let Ok(answer) = read(fold.so_far()?, request)
        {
            self.show(id, page.clone(), Arc::new(answer));
        }
        Ok(())
    }
}

/// A trace that the second prompt cannot be asked about.
fn no_partner(node: &NodeIndex) -> Problem {
    let name = names::node_name(node);
    let message = format!(
        "The traced node, {name}, stands at a token without a partner in the right prompt. Align the tokens in another \
         way, or end the trace."
    );
    Problem::refused(400, &message, None)
}

fn read(folded: Folded, request: &Arc<BatchedTdbRequest>) -> Result<Answer, Problem> {
    Answer::read(folded, request.clone()).map_err(|e| Problem::unreadable("the question", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_without_a_place_finds_its_field() {
        let page = PageState::default();
        let at = |message: &str| field_of_reference_sentence(message, &page).map(|field| field.to_string());
        let said = "' Germany' decoded to [1, 2]; wanted exactly 1 token";
        assert_eq!(at(said).as_deref(), Some("subRequests[0].distractorTokens[0]"));
        assert_eq!(at("Unhandled server exception"), None);
    }

    #[test]
    fn what_is_under_way_is_said() {
        let stage = Stage { side: 1, pass: ProgressPass::Backward, layer: 2, of: 12 };
        let busy = |stage, sides| Busy { id: 0, since: 0.0, stage, sides }.words();
        assert_eq!(busy(None, 2), "Running…");
        assert_eq!(busy(Some(stage.clone()), 2), "Backward pass, right 2/12");
        assert_eq!(busy(Some(stage), 1), "Backward pass 2/12");
    }
}
