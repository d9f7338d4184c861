package servers

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// SecuredKafka is a broker that lets nobody do what was not allowed: TLS, SASL/SCRAM-SHA-512 and ACLs.
type SecuredKafka struct {
	*Process
	// CA is a PEM file of the authority that vouches for the broker.
	CA string

	inside string // a listener where everybody may do everything
}

// StartSecuredKafka starts one that knows users by their passwords. None of them may do anything yet.
func StartSecuredKafka(t testing.TB, passwords map[string]string) *SecuredKafka {
	t.Helper()
	data := t.TempDir()
	s := &SecuredKafka{CA: filepath.Join(data, "ca.pem")}
	server := filepath.Join(data, "server.pem")
	if err := selfSigned(s.CA, server); err != nil {
		t.Fatal(err)
	}
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	settings := fmt.Sprintf(`authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.secured.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secured.ssl.keystore.type=PEM
listener.name.secured.ssl.keystore.location=%s
`, server)
	s.Process, err = newKafka(t, data, listener{name: "SECURED", protocol: "SASL_SSL", port: port, settings: settings})
	if err != nil {
		missing(t, "Kafka", err)
	}
	t.Cleanup(s.Kill)
	s.inside, s.Addr = s.Addr, fmt.Sprintf("127.0.0.1:%d", port)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s.admin(t, func(adm *kadm.Client) error {
		var upserts []kadm.UpsertSCRAM
		for user, password := range passwords {
			upserts = append(upserts, kadm.UpsertSCRAM{User: user, Mechanism: kadm.ScramSha512, Iterations: 4096, Password: password})
		}
		done, err := adm.AlterUserSCRAMs(ctx, nil, upserts)
		if err != nil {
			return err
		}
		return done.Error()
	})
	return s
}

// Allow makes ACLs.
func (s *SecuredKafka) Allow(t testing.TB, acls ...*kadm.ACLBuilder) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s.admin(t, func(adm *kadm.Client) error {
		for _, b := range acls {
			made, err := adm.CreateACLs(ctx, b)
			if err != nil {
				return err
			}
			if i := slices.IndexFunc(made, func(r kadm.CreateACLsResult) bool { return r.Err != nil }); i >= 0 {
				return made[i].Err
			}
		}
		return nil
	})
}

func (s *SecuredKafka) admin(t testing.TB, do func(*kadm.Client) error) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.inside))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := do(kadm.NewClient(cl)); err != nil {
		t.Fatal(err)
	}
}

// selfSigned makes a certificate for this machine that vouches for itself, and one file of it with its key.
func selfSigned(certificate, withKey string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tests"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(certificate, cert, 0o600); err != nil {
		return err
	}
	return os.WriteFile(withKey, append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), cert...), 0o600)
}
