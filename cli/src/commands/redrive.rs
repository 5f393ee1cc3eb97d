//! `packshot redrive`: runs failed rows of a deployment again.

use clap::Args;
use packshot_aws::{
    clients::Aws,
    redrive::{Queues, find_queues, redrive},
};

use crate::{
    exit_status::{CommandResult, ExitStatus},
    output,
};

/// Arguments of `packshot redrive`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  packshot redrive --bucket packshot-123456789012-eu-central-1
  packshot redrive --rows-queue URL --retry-queue URL

The messages in the retry queue go back to the rows queue. The results of these rows replace the failed ones in the same \
manifest. Rows of class `row` are not in the retry queue: correct failed.csv and submit it as a new catalog. Region and account \
come from the AWS configuration (AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL).")]
pub(crate) struct RedriveArgs {
    /// Bucket of the deployment; its queues are found by its name.
    #[arg(long, required_unless_present_all = ["rows_queue", "retry_queue"])]
    bucket: Option<String>,
    /// URL of the rows queue, instead of finding it.
    #[arg(long, value_name = "URL", requires = "retry_queue")]
    rows_queue: Option<String>,
    /// URL of the retry queue, instead of finding it.
    #[arg(long, value_name = "URL", requires = "rows_queue")]
    retry_queue: Option<String>,
}

/// Moves the messages and prints how many.
pub(crate) async fn run(args: RedriveArgs) -> CommandResult {
    let aws = Aws::load().await;
    let queues = match (args.rows_queue, args.retry_queue) {
        (Some(rows), Some(retry)) => Queues { rows, retry },
        _ => find_queues(aws.sqs(), &args.bucket.unwrap_or_default()).await?,
    };
    let redriven = redrive(aws.sqs(), &queues).await?;
    output::print(format_args!("{} rows run again.", redriven.moved))?;
    if redriven.poison > 0 {
        output::print(format_args!(
            "{} messages are not rows and stay in the retry queue; look at their bodies.",
            redriven.poison
        ))?;
    }
    Ok(ExitStatus::Done)
}
