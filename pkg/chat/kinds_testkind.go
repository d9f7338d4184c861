//go:build testkind

package chat

// KindTest is a kind of a later version, for tests that run two versions side by side. It has no body and changes nothing.
const KindTest Kind = 200

func init() {
	kindWords[KindTest], kindOfWord["test"], since[KindTest] = "test", KindTest, 2
	bodiless[KindTest] = true
}
