"""The bucket that holds everything from a quarter's prefetch to its topics.

It is created private, encrypted and versioned, or adopted.
"""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components import policies
from components.account import Account
from components.deployed_stack import bucket_marker, bucket_name
from components.settings import AdoptedResources, StackSettings

NONCURRENT_DAYS = 30
"""Days for which an overwritten or deleted version can be restored."""


@dataclass(frozen=True)
class PipelineBucketArgs:
    stack: StackSettings
    adopted: AdoptedResources
    account: Account


class PipelineBucket(pulumi.ComponentResource):
    """The existing bucket that the settings name, or else a bucket of the stack's own."""

    bucket: pulumi.Output[str]
    """The bucket's name, known once the bucket exists."""
    name: str
    """The same name, known at preview, for policies."""

    def __init__(self, name: str, args: PipelineBucketArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ftm:components:PipelineBucket", name, None, opts)
        self._args = args
        self.name = args.adopted.bucket_name or bucket_name(args.stack, args.account)
        self.bucket = (
            pulumi.Output.from_input(self.name) if args.adopted.bucket_name else self._create_bucket(name).bucket
        )
        self.register_outputs({"bucket": self.bucket})

    def _create_bucket(self, name: str) -> aws.s3.Bucket:
        stack, account = self._args.stack, self._args.account
        # With deletion protection, `pulumi destroy` leaves the bucket and everything that protects its content.
        keep = stack.deletion_protection
        child = pulumi.ResourceOptions(parent=self, retain_on_delete=keep)
        marker = aws.ssm.Parameter(
            f"{name}-created",
            name=bucket_marker(stack),
            type="String",
            value=self.name,
            description="Exists while Pulumi manages the bucket of this name",
            tags=stack.tags,
            opts=pulumi.ResourceOptions(parent=self),
        )
        bucket = aws.s3.Bucket(
            name,
            bucket=self.name,
            force_destroy=not keep,
            tags=stack.tags,
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=keep, depends_on=[marker]),
        )
        access_block = aws.s3.BucketPublicAccessBlock(
            name,
            bucket=bucket.bucket,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=child,
        )
        aws.s3.BucketPolicy(
            name,
            bucket=bucket.bucket,
            policy=policies.tls_only(account.bucket_arn(self.name)),
            # S3 refuses the policy with a conflict while the access block is being set.
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=keep, depends_on=[access_block]),
        )
        aws.s3.BucketServerSideEncryptionConfiguration(
            name,
            bucket=bucket.bucket,
            rules=[
                aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(
                    apply_server_side_encryption_by_default=(
                        aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
                            sse_algorithm="aws:kms", kms_master_key_id=stack.kms_key_arn
                        )
                    ),
                    bucket_key_enabled=True,  # KMS is called for the bucket, instead of for every object
                )
            ],
            opts=child,
        )
        versioning = aws.s3.BucketVersioning(
            name,
            bucket=bucket.bucket,
            versioning_configuration=aws.s3.BucketVersioningVersioningConfigurationArgs(status="Enabled"),
            opts=child,
        )
        aws.s3.BucketLifecycleConfiguration(
            name,
            bucket=bucket.bucket,
            rules=[
                aws.s3.BucketLifecycleConfigurationRuleArgs(
                    id="expire-old-versions",
                    status="Enabled",
                    filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=""),
                    abort_incomplete_multipart_upload=(
                        aws.s3.BucketLifecycleConfigurationRuleAbortIncompleteMultipartUploadArgs(
                            days_after_initiation=7
                        )
                    ),
                    noncurrent_version_expiration=(
                        aws.s3.BucketLifecycleConfigurationRuleNoncurrentVersionExpirationArgs(
                            noncurrent_days=NONCURRENT_DAYS
                        )
                    ),
                )
            ],
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=keep, depends_on=[versioning]),
        )
        if self._args.adopted.access_logs_bucket:
            aws.s3.BucketLogging(
                name,
                bucket=bucket.bucket,
                target_bucket=self._args.adopted.access_logs_bucket,
                target_prefix=f"{self.name}/",
                opts=child,
            )
        return bucket
