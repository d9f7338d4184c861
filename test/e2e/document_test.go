package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tideline/test/platform"
)

// documentWithin bounds each of the two runs of Schemathesis; with it the test ends within three minutes. On an idle machine
// the runs take 40 and 5 seconds. A run that is cut off reports what it has found until then.
const documentWithin = 80 * time.Second

// The OpenAPI document is tried against a standalone by Schemathesis: what it allows, what it does not, and other methods.
func TestDocument_SchemathesisFindsNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a server and minutes")
	}
	tool, err := filepath.Abs("../../.tools/schemathesis")
	if err != nil {
		t.Fatal(err)
	}
	document, err := filepath.Abs("../../schemas/openapi/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(tool, "complete")); err != nil {
		if os.Getenv("TIDELINE_REQUIRE_SERVERS") == "1" {
			t.Fatal("Schemathesis is required and not there (scripts/install-schemathesis installs it)")
		}
		t.Skip("Schemathesis is not here (scripts/install-schemathesis installs it)")
	}
	seed := os.Getenv("TIDELINE_SCHEMATHESIS_SEED")
	if seed == "" {
		seed = "7"
	}
	t.Logf("TIDELINE_SCHEMATHESIS_SEED=%s", seed)
	pf := platform.Standalone(t, "TIDELINE_HTTP_RATE_PER_USER=0", "TIDELINE_HTTP_RATE_PER_ADDRESS=0")
	for name, run := range map[string]struct {
		token string
		which []string
	}{
		// Without the call that ends the session of the run itself.
		"people":         {pf.Join(t, "document").Token, []string{"--exclude-path-regex", "^/admin", "--exclude-path", "/ws", "--exclude-operation-id", "logout"}},
		"administrators": {pf.Admin(), []string{"--include-path-regex", "^/admin"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{
				"run", document, "--url", pf.HTTP + "/v1", "-H", "Authorization: Bearer " + run.token,
				"--seed", seed, "--max-examples", "5", "--phases", "examples,coverage,fuzzing", "--no-shrink", "--continue-on-failure", "--no-color", "--warnings", "off",
				// Rules between fields, and between header and body, are not in a schema: see ADR 31.
				"--checks", "all", "--exclude-checks", "positive_data_acceptance",
			}, run.which...)
			ctx, cancel := context.WithTimeout(t.Context(), documentWithin)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(tool, "bin", "schemathesis"), args...)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "PYTHONPATH=" + tool, "LANG=C.UTF-8"}
			cmd.Dir = t.TempDir() // it keeps what it found
			cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
			cmd.WaitDelay = 10 * time.Second
			out, err := cmd.CombinedOutput()
			text := string(out)
			if ctx.Err() != nil && !strings.Contains(text, "= FAILURES =") && !strings.Contains(text, "= ERRORS =") {
				t.Logf("cut off after %s, with nothing found:\n%s", documentWithin, text[max(0, len(text)-2000):])
				return
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, text[max(0, len(text)-20_000):])
			}
			if _, summary, found := strings.Cut(text, "Test cases:"); found {
				t.Log(strings.TrimSpace(summary))
			}
		})
	}
}
