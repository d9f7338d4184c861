package api_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"tideline/internal/api"
)

// sentAway looks that a refusal for asking too often says when to come back, and gives when that is.
func (a *answer) sentAway() time.Duration {
	a.t.Helper()
	a.refused(429, "rate_limited", "")
	e := a.object()["error"].(m)
	ms, _ := e["retry_after_ms"].(float64)
	seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
	if err != nil || ms < 1 || float64(seconds)*1000 < ms || e["retryable"] != true {
		a.t.Errorf("%s says to come back after %v ms, and Retry-After %q", a.call, ms, a.header.Get("Retry-After"))
	}
	return time.Duration(ms) * time.Millisecond
}

func TestLimits_OfAPersonAreTheirOwn(t *testing.T) {
	ada, bob := join(t, "ada"), join(t, "bob")
	cfg := api.DefaultConfig()
	cfg.RatePerUser, cfg.BurstPerUser = 2, 10
	base := theRig(t).door(t, cfg)
	ada.base, bob.base = base, base
	for i := range 10 {
		if a := ada.get("/users/me"); a.status != 200 {
			t.Fatalf("number %d of a burst of 10 was answered %d", i+1, a.status)
		}
	}
	wait := ada.get("/users/me").sentAway()
	if wait > 500*time.Millisecond {
		t.Errorf("at two a second the next one is to come after %s", wait)
	}
	// A second session of the same person does not help; another person does not notice.
	second := *ada
	second.base = theRig(t).base
	second.login()
	second.base = base
	second.get("/users/me").sentAway()
	bob.get("/users/me").must(200)
	eventually(t, "ada may ask again", func() bool { return ada.get("/users/me").status == 200 })
}

func TestLimits_OfAnAddressCountWhatComesWithoutAToken(t *testing.T) {
	ada := join(t, "ada")
	cfg := api.DefaultConfig()
	cfg.RatePerAddress, cfg.BurstPerAddr = 0.1, 8
	cfg.TrustedProxies = []string{"127.0.0.1"}
	base := theRig(t).door(t, cfg)
	from := func(address string) (*person, header) {
		v := visitor(t)
		v.base = base
		return v, header{"X-Forwarded-For", address}
	}
	ways := map[string]func(v *person, h header) *answer{
		"register": func(v *person, h header) *answer { return v.call("POST", "/users", m{"username": "x"}, h) },
		"login":    func(v *person, h header) *answer { return v.call("POST", "/sessions", m{"platform": "toaster"}, h) },
		"refresh": func(v *person, h header) *answer {
			return v.call("POST", "/sessions/refresh", m{"refresh_token": "x"}, h)
		},
		"no token": func(v *person, h header) *answer { return v.get("/users/me", h) },
		"a wrong token": func(v *person, h header) *answer {
			return v.get("/users/me", h, header{"Authorization", "Bearer guess"})
		},
		"a wrong administrators' token": func(v *person, h header) *answer {
			return v.call("POST", "/admin/users", m{}, h, header{"Authorization", "Bearer guess"})
		},
		"the document": func(v *person, h header) *answer { return v.get("/openapi.json", h) },
	}
	i := 0
	for name, ask := range ways {
		i++
		t.Run(name, func(t *testing.T) {
			v, h := from("203.0.113." + strconv.Itoa(i))
			v.t = t
			for n := range 8 {
				if a := ask(v, h); a.status == 429 {
					t.Fatalf("number %d of a burst of 8 was sent away", n+1)
				}
			}
			ask(v, h).sentAway()
		})
	}
	// A person with a token is not counted by address, however busy the address is.
	ada.base = base
	for range 20 {
		ada.get("/users/me", header{"X-Forwarded-For", "203.0.113.1"}).must(200)
	}
	// An IPv6 client has a /64 to itself, and is one client in all of it; the next network is another.
	for n := range 8 {
		v, h := from("2001:db8:1:2::" + strconv.Itoa(n+1))
		v.get("/users/me", h).refused(401, "unauthenticated", "")
	}
	v, h := from("2001:db8:1:2:ffff::9")
	v.get("/users/me", h).sentAway()
	v, h = from("2001:db8:1:3::1")
	v.get("/users/me", h).refused(401, "unauthenticated", "")
}

func TestLimits_BelieveOnlyProxiesThatAreTrusted(t *testing.T) {
	cfg := api.DefaultConfig()
	cfg.RatePerAddress, cfg.BurstPerAddr = 0.1, 3
	v := visitor(t)
	v.base = theRig(t).door(t, cfg)
	for i := range 3 {
		v.get("/users/me", header{"X-Forwarded-For", "203.0.113." + strconv.Itoa(i)}).refused(401, "unauthenticated", "")
	}
	v.get("/users/me", header{"X-Forwarded-For", "203.0.113.99"}).sentAway()
}

func TestLimits_OfRequestsUnderWay(t *testing.T) {
	cfg := api.DefaultConfig()
	cfg.MaxRequests, cfg.RatePerUser = 1, 0
	ada := join(t, "ada")
	cid := ada.group()
	ada.base = theRig(t).door(t, cfg)
	waiting := make(chan string)
	go func() {
		for {
			// For a second, once the seat is its own.
			if code := ada.get("/conversations/" + cid + "/messages?told=99").code(); code != "overloaded" {
				waiting <- code
				return
			}
		}
	}()
	eventually(t, "the one seat is taken", func() bool {
		a := ada.get("/users/me")
		if a.status == 200 {
			return false
		}
		a.refused(503, "overloaded", "")
		if a.header.Get("Retry-After") == "" {
			t.Error("it does not say when to come back")
		}
		return true
	})
	if code := <-waiting; code != "unavailable" {
		t.Errorf("the one who waited was answered %s", code)
	}
	ada.get("/users/me").must(200)
}

func TestConfig_NamesEveryFault(t *testing.T) {
	cfg := api.Config{MaxBody: 1, RatePerUser: 5, RatePerAddress: -1, TrustedProxies: []string{"10.0.0.0/8", "nonsense"}}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("all of it is taken")
	}
	for _, name := range []string{"http.addr", "http.max-body", "http.max-requests", "http.rate-per-user", "http.rate-per-address", "http.trusted-proxies"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not among the faults: %v", name, err)
		}
	}
	good := api.DefaultConfig()
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}
