"""The registered resources of the bucket."""

import json

from testing.paper_cloud import ACCOUNT, EVERYTHING_GIVEN, REGION, VARIANTS, Deploy

ENCRYPTION = "s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
NAME = f"ftm-{ACCOUNT}-{REGION}"


def test_the_bucket_is_private_encrypted_and_versioned(deploy: Deploy) -> None:
    deployed = deploy()
    assert deployed.one("s3/bucket:Bucket")["bucket"] == NAME
    closed = deployed.one("s3/bucketPublicAccessBlock:BucketPublicAccessBlock")
    assert [value for key, value in closed.items() if key != "bucket"] == [True] * 4
    assert deployed.one("s3/bucketVersioning:BucketVersioning")["versioningConfiguration"] == {"status": "Enabled"}
    (rule,) = deployed.one(ENCRYPTION)["rules"]
    assert rule["applyServerSideEncryptionByDefault"] == {"sseAlgorithm": "aws:kms"}


def test_the_bucket_rejects_requests_without_tls(deploy: Deploy) -> None:
    policy = json.loads(deploy().one("s3/bucketPolicy:BucketPolicy")["policy"])
    (statement,) = policy["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert statement["Resource"] == [f"arn:aws:s3:::{NAME}", f"arn:aws:s3:::{NAME}/*"]


def test_incomplete_uploads_and_old_versions_expire(deploy: Deploy) -> None:
    (rule,) = deploy().one("s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration")["rules"]
    assert rule["abortIncompleteMultipartUpload"] == {"daysAfterInitiation": 7}
    assert rule["noncurrentVersionExpiration"] == {"noncurrentDays": 30}
    assert "expiration" not in rule


def test_the_data_of_a_protected_stack_is_retained(deploy: Deploy) -> None:
    deployed = deploy(**VARIANTS["vLLM disabled"])
    kept = [resource for resource in deployed.custom if resource.type.startswith("aws:s3/")]
    assert len(kept) == 7  # with the resources that keep it private, encrypted and versioned
    assert all(resource.retain_on_delete and not resource.protect for resource in kept)
    assert deployed.one("s3/bucket:Bucket")["forceDestroy"] is False


def test_an_unprotected_bucket_is_deleted_with_its_data(deploy: Deploy) -> None:
    deployed = deploy(**VARIANTS["every option"])
    assert not [resource for resource in deployed.custom if resource.retain_on_delete or resource.protect]
    assert deployed.one("s3/bucket:Bucket")["forceDestroy"] is True


def test_a_parameter_exists_only_while_pulumi_manages_the_bucket(deploy: Deploy) -> None:
    deployed = deploy()
    marker = deployed.one("ssm/parameter:Parameter", "bucket-created")
    assert (marker["name"], marker["value"]) == ("/ftm/bucket/created", NAME)
    (bucket,) = deployed.all("s3/bucket:Bucket")
    assert [urn for urn in bucket.depends_on if urn.endswith("::bucket-created")]
    assert "bucket-created" not in [resource.name for resource in deploy(**VARIANTS["everything given"]).custom]


def test_a_configured_key_encrypts_and_a_configured_bucket_receives_the_access_log(deploy: Deploy) -> None:
    key = EVERYTHING_GIVEN["kmsKeyArn"]
    deployed = deploy(**VARIANTS["vLLM disabled"])
    (rule,) = deployed.one(ENCRYPTION)["rules"]
    assert rule["applyServerSideEncryptionByDefault"]["kmsMasterKeyId"] == key
    assert deployed.one("s3/bucketLogging:BucketLogging")["targetBucket"] == "access-logs"
