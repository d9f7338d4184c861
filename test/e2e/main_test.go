package e2e

import (
	"os"
	"testing"

	"tideline/test/platform"
)

func TestMain(m *testing.M) { os.Exit(platform.Main(m)) }
