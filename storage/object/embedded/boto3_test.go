package embedded_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/storage/object/embedded"
)

// script is what a data scientist's program does with boto3.
const script = `
import io, os, ssl, sys, urllib.request, boto3
from boto3.s3.transfer import TransferConfig
from botocore.client import Config
from botocore.exceptions import ClientError
s3 = boto3.client("s3", endpoint_url=sys.argv[1], config=Config(signature_version="s3v4"))
s3.create_bucket(Bucket="data")
s3.put_object(Bucket="data", Key="a/small", Body=b"0123456789", Metadata={"kind": "test"})
assert s3.get_object(Bucket="data", Key="a/small", Range="bytes=3-5")["Body"].read() == b"345"
assert s3.head_object(Bucket="data", Key="a/small")["Metadata"] == {"kind": "test"}
big = os.urandom(11 << 20)
s3.upload_fileobj(io.BytesIO(big), "data", "a/big", Config=TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20))
back = io.BytesIO()
s3.download_fileobj("data", "a/big", back)
assert back.getvalue() == big
assert [o["Key"] for o in s3.list_objects_v2(Bucket="data", Prefix="a/")["Contents"]] == ["a/big", "a/small"]
tls = ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"])
url = s3.generate_presigned_url("get_object", Params={"Bucket": "data", "Key": "a/small"}, ExpiresIn=60)
assert urllib.request.urlopen(url, context=tls).read() == b"0123456789"
url = s3.generate_presigned_url("put_object", Params={"Bucket": "data", "Key": "a/put"}, ExpiresIn=60)
urllib.request.urlopen(urllib.request.Request(url, data=b"x", method="PUT"), context=tls)
assert s3.get_object(Bucket="data", Key="a/put")["Body"].read() == b"x"
for call in (lambda: s3.put_bucket_policy(Bucket="data", Policy="{}"), lambda: s3.put_bucket_cors(Bucket="data", CORSConfiguration={"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}]})):
    try:
        call()
        raise SystemExit("a user changed a bucket's settings")
    except ClientError as e:
        assert e.response["Error"]["Code"] == "AccessDenied", e
s3.delete_objects(Bucket="data", Delete={"Objects": [{"Key": "a/big"}, {"Key": "a/put"}]})
assert s3.list_objects_v2(Bucket="data")["KeyCount"] == 1
`

func TestTheRealBoto3Works(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil || exec.CommandContext(t.Context(), python, "-c", "import boto3").Run() != nil {
		t.Skip("python3 with boto3 is not on PATH: boto3 was not tried")
	}
	s := start(t)
	access, secret, err := embedded.Keys(s.keys.DataKey, cluster.RoleUser, "0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", script, "https://"+s.address)
	cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+access, "AWS_SECRET_ACCESS_KEY="+secret, "AWS_DEFAULT_REGION=us-east-1",
		"AWS_CA_BUNDLE="+filepath.Join(s.dir, pki.CAFile), "AWS_EC2_METADATA_DISABLED=true", "HOME="+s.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
