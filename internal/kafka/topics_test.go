package kafka

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
)

func TestTopic_SettingsThatWouldBreakAPromiseAreRefused(t *testing.T) {
	cfg := DefaultConfig()
	good := map[string]string{"min.insync.replicas": "2", "retention.ms": "604800000", "cleanup.policy": "delete", "max.message.bytes": "1048588"}
	check := func(key, value string) []error {
		var settings []kadm.Config
		for k, v := range good {
			if k == key {
				v = value
			}
			settings = append(settings, kadm.Config{Key: k, Value: &v})
		}
		return Topics()[0].check(cfg, settings)
	}
	for _, c := range []struct{ key, value string }{
		{"", ""}, {"retention.ms", "-1"}, {"retention.ms", "86400000"}, {"min.insync.replicas", "3"}, {"max.message.bytes", "1048576"},
	} {
		if faults := check(c.key, c.value); len(faults) > 0 {
			t.Errorf("%s=%s is refused: %v", c.key, c.value, faults)
		}
	}
	for _, c := range []struct{ key, value string }{
		{"retention.ms", "3600000"}, {"retention.ms", "0"}, {"min.insync.replicas", "1"}, {"max.message.bytes", "1000000"}, {"cleanup.policy", "compact"}, {"cleanup.policy", "compact,delete"},
	} {
		if faults := check(c.key, c.value); len(faults) != 1 || !strings.Contains(faults[0].Error(), c.key) || !strings.Contains(faults[0].Error(), TopicInbound) {
			t.Errorf("%s=%s: %v", c.key, c.value, faults)
		}
	}
	if faults := Topics()[0].check(cfg, nil); len(faults) > 0 {
		t.Errorf("what a broker does not tell is held against it: %v", faults)
	}
}
