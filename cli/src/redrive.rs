//! `packshot redrive`: failed rows run again.

use clap::Args;
use packshot_aws::{
    clients::Aws,
    redrive::{Queues, find_queues, redrive},
};
use packshot_pipeline::ports::QueueError;

/// Arguments of `packshot redrive`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  packshot redrive --bucket packshot-123456789012-eu-central-1

The rows in the retry queue go back to the rows queue, and their new results replace the failed ones in the same manifest. Rows that
failed by their own fault are not in the retry queue: mend failed.csv and drop it as a new catalog. The region and the account are
those of the AWS configuration (AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL).")]
pub struct RedriveArgs {
    /// The bucket of the deployment; its queues are found by its name.
    #[arg(long, required_unless_present_all = ["rows_queue", "retry_queue"])]
    pub bucket: Option<String>,
    /// URL of the rows queue, instead of finding it.
    #[arg(long, value_name = "URL", requires = "retry_queue")]
    pub rows_queue: Option<String>,
    /// URL of the retry queue, instead of finding it.
    #[arg(long, value_name = "URL", requires = "rows_queue")]
    pub retry_queue: Option<String>,
}

/// Moves the messages and says how many.
#[expect(clippy::print_stdout, reason = "the count is what the command is for")]
pub async fn run(args: RedriveArgs) -> Result<(), QueueError> {
    let aws = Aws::load().await;
    let queues = match (args.rows_queue, args.retry_queue) {
        (Some(rows), Some(retry)) => Queues { rows, retry },
        _ => find_queues(aws.sqs(), &args.bucket.unwrap_or_default()).await?,
    };
    let redriven = redrive(aws.sqs(), &queues).await?;
    println!("{} rows run again.", redriven.moved);
    if redriven.poison > 0 {
        println!("{} messages are no rows and stay in the retry queue; look at their bodies.", redriven.poison);
    }
    Ok(())
}
