//! Several futures within one task.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

/// Drives all futures to their ends, within one task, so that dropping it ends them together.
pub(super) async fn join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    struct Running<F: Future> {
        future: Pin<Box<F>>,
        output: Option<F::Output>,
    }
    let start = |future| Running { future: Box::pin(future), output: None };
    let mut all: Vec<Running<F>> = futures.map(start).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for one in &mut all {
            if one.output.is_none() {
                match one.future.as_mut().poll(context) {
                    Poll::Ready(value) => one.output = Some(value),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    all.into_iter().filter_map(|one| one.output).collect()
}
