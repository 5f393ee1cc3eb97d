//! What the generator tells whoever watches: every call and every end of a row, once.

use packshot_pipeline::model::{error_class::ErrorClass, event::Fact, message::RowMessage};

use crate::rig::{CALL, Rig, job, message, not_sent, retry_after, seconds, status, unknown};

const COMPLETED: Fact = Fact::RowCompleted { reused: false, archive_error: false };

fn answered(retry: bool) -> Fact {
    Fact::Called { took: CALL, retry, pictures: 2 }
}

fn refused(retry: bool) -> Fact {
    Fact::Called { took: seconds(0), retry, pictures: 0 }
}

#[tokio::test(start_paused = true)]
async fn every_call_is_told_and_says_whether_it_is_the_first() {
    let (rig, mug) = (Rig::new(), message(1, "mug"));
    rig.script("mug", [retry_after(429, None, Some(seconds(1))), status(500, None), not_sent()]);
    rig.run(&[mug]).await;
    // What was throttled has used up nothing, so the call after it is the row's first.
    let expected = [refused(false), Fact::Throttled, refused(false), refused(true), answered(true), COMPLETED];
    assert_eq!(rig.facts(), expected);
    assert_eq!(rig.calls().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_billed_is_told_by_whoever_counts_it() {
    let (rig, mug) = (Rig::new(), message(1, "mug"));
    rig.script("mug", [unknown("connection_lost", None)]);
    rig.run(std::slice::from_ref(&mug)).await;
    assert_eq!(rig.facts(), [refused(false), Fact::OutcomeUnknown, answered(true), COMPLETED]);
    assert_eq!(rig.entry(&mug).await.unknown, 1);

    // A worker that dies takes its facts along; what it leaves behind is told by the next.
    let (rig, cup) = (Rig::new(), message(2, "cup"));
    rig.send(std::slice::from_ref(&cup)).await;
    rig.batch_killed_after(seconds(10)).await;
    assert_eq!(rig.facts(), []);
    rig.drain().await;
    assert_eq!(rig.facts(), [Fact::OutcomeUnknown, answered(true), COMPLETED]);
    assert_eq!(rig.entry(&cup).await.unknown, 1);

    // The same, where that was one too many.
    let (rig, pot) = (Rig::with(|settings| settings.unknown_outcome_retries = 0), message(3, "pot"));
    rig.send(&[pot]).await;
    rig.batch_killed_after(seconds(10)).await;
    rig.drain().await;
    assert_eq!(rig.facts(), [Fact::OutcomeUnknown, Fact::RowFailed(ErrorClass::Unknown)]);
}

#[tokio::test(start_paused = true)]
async fn ends_of_rows() {
    let rig = Rig::new();
    rig.script("mug", [status(400, Some("moderation_blocked"))]);
    rig.run(&[message(1, "mug")]).await;
    assert_eq!(rig.facts(), [refused(false), Fact::RowFailed(ErrorClass::Row)]);

    // The same request in another job: shared, and no call.
    let rig = Rig::new();
    rig.run(&[message(1, "mug")]).await;
    rig.run(&[RowMessage { job: job("b"), ..message(1, "mug") }]).await;
    let reused = Fact::RowCompleted { reused: true, archive_error: false };
    assert_eq!(rig.facts(), [answered(false), COMPLETED, reused]);

    // A row that is settled already is not told again.
    rig.run(&[message(1, "mug")]).await;
    assert_eq!(rig.facts().len(), 3);

    let rig = Rig::with(|settings| settings.archive = true);
    rig.run(&[message(1, "mug")]).await;
    let unkept = Fact::RowCompleted { reused: false, archive_error: true };
    assert_eq!(rig.facts(), [answered(false), unkept]);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_is_told_by_whoever_is_held_back() {
    let rig = Rig::new();
    rig.script("mug", [status(402, None)]);
    rig.send(&[message(1, "mug")]).await;
    rig.batch().await;
    assert_eq!(rig.facts(), [refused(false), Fact::Held]);
    rig.send(&[message(2, "cup")]).await;
    rig.batch().await;
    assert_eq!(rig.facts()[2..], [Fact::Held]);
    rig.drain().await;
    let after = &rig.facts()[3..];
    assert_eq!(after.iter().filter(|fact| **fact == COMPLETED).count(), 2);
    assert_eq!(after.iter().filter(|fact| matches!(fact, Fact::Called { .. })).count(), rig.calls().len() - 1);
}
