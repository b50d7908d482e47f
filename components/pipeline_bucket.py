"""The bucket that holds a quarter from prefetch to topics: created private, encrypted and versioned, or adopted."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components import policies
from components.account import Account
from components.naming import fit
from components.settings import Settings

NONCURRENT_DAYS = 30
"""Days that a version which was overwritten or deleted can still be brought back."""


@dataclass(frozen=True)
class PipelineBucketArgs:
    settings: Settings
    account: Account


class PipelineBucket(pulumi.ComponentResource):
    """`bucket_name` of the settings as it is, or else a bucket of the stack's own."""

    bucket: pulumi.Output[str]
    """The bucket's name."""
    name: str
    """The same, known before the bucket is there, for policies."""

    def __init__(self, name: str, args: PipelineBucketArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ftm:components:PipelineBucket", name, None, opts)
        account, settings = args.account, args.settings
        # Bucket names are the whole world's: the account and the region make this one unique. At most 63 characters.
        self.name = settings.bucket_name or f"{fit(settings.prefix, 35)}-{account.id}-{account.region}"
        if settings.bucket_name:
            self.bucket = pulumi.Output.from_input(settings.bucket_name)
        else:
            self.bucket = self._create_bucket(name, args).bucket
        self.register_outputs({"bucket": self.bucket})

    def _create_bucket(self, name: str, args: PipelineBucketArgs) -> aws.s3.Bucket:
        settings = args.settings
        child = pulumi.ResourceOptions(parent=self)
        keep = pulumi.ResourceOptions(
            parent=self, protect=settings.deletion_protection, retain_on_delete=settings.deletion_protection
        )
        bucket = aws.s3.Bucket(name, bucket=self.name, tags=settings.tags, opts=keep)
        closed = aws.s3.BucketPublicAccessBlock(
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
            policy=policies.tls_only(args.account.bucket_arn(self.name)),
            # S3 answers a conflict when both are set at once.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[closed]),
        )
        aws.s3.BucketServerSideEncryptionConfiguration(
            name,
            bucket=bucket.bucket,
            rules=[
                aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(
                    apply_server_side_encryption_by_default=(
                        aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
                            sse_algorithm="aws:kms", kms_master_key_id=settings.kms_key_arn or None
                        )
                    ),
                    bucket_key_enabled=True,  # one call to KMS a key and bucket, instead of one an object
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
                    id="forget",
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
            opts=pulumi.ResourceOptions(parent=self, depends_on=[versioning]),
        )
        if settings.access_logs_bucket:
            aws.s3.BucketLogging(
                name,
                bucket=bucket.bucket,
                target_bucket=settings.access_logs_bucket,
                target_prefix=f"{self.name}/",
                opts=child,
            )
        return bucket
