package config

import (
	"net/url"
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"
)

// Parquet is files by table and day, in a folder or a bucket, and manifests of them.
type Parquet struct {
	// A folder, relative to that of this config, or s3://BUCKET/PREFIX. Nobody else
	// writes there.
	Path string `json:"path" need:"true" form:"place"`
	// When what has gathered becomes files; what is reached first.
	Roll Roll `json:"roll"`
	// Compression of the files.
	Compression string `json:"compression" default:"zstd" enum:"zstd|snappy|gzip|none"`
	// How the bucket is reached. Default: Amazon's, by the environment's credentials
	// or the machine's role.
	S3 *S3 `json:"s3"`
}

// Roll bounds what one set of files holds.
type Roll struct {
	// Size of what has gathered, before compression, 1MiB to 16GiB.
	Bytes Size `json:"bytes" default:"256MiB" min:"1MiB" max:"16GiB"`
	// Age of the oldest event in it, 1s to 1d.
	Age Duration `json:"age" default:"5m" min:"1s" max:"1d"`
}

// S3 is a service that speaks its protocol.
type S3 struct {
	// http(s)://HOST:PORT. Default: Amazon's.
	Endpoint string `json:"endpoint" form:"base_url"`
	// Region of the bucket. Default: what the service says.
	Region string `json:"region" form:"plain"`
	// Credentials. Default: AWS_ACCESS_KEY_ID and its like, ~/.aws/credentials, or
	// the machine's role.
	AccessKey Secret `json:"access_key"`
	// The other half of them.
	SecretKey Secret `json:"secret_key"`
}

// checkPlace is of a folder or a bucket.
func checkPlace(s string) *yamltree.Problem {
	if !strings.Contains(s, "://") {
		return checkPath(s)
	}
	if u, err := url.Parse(s); err != nil || u.Scheme != "s3" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return yamltree.Wrong("is neither a folder nor a bucket").Fix("like ./lake, or s3://BUCKET/PREFIX; credentials belong into s3:")
	}
	return nil
}

func (c *checker) parquet(path string, p *Parquet) {
	if s := p.S3; s != nil {
		if !strings.HasPrefix(p.Path, "s3://") && p.Path != "" {
			c.fail(path+".s3", "write path: s3://BUCKET/PREFIX, or remove s3", "%s.s3: %s is a folder", path, p.Path)
		}
		if (s.AccessKey.Reveal() == "") != (s.SecretKey.Reveal() == "") {
			c.fail(path+".s3", "give access_key and secret_key, or neither", "%s.s3 has half of its credentials", path)
		}
	}
}
