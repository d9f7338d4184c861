// Package client talks to Tideline as any client does: over HTTP and the socket, knowing nothing but the contract. It is
// used by tests, and it is the model for clients in other languages: docs/socket.md says in words what is here in Go.
//
//	c := client.New("http://127.0.0.1:8080")
//	err := c.Login(ctx, "ada", "secret words", "desktop")
//	live := c.Live(client.LiveOptions{})
//	go live.Run(ctx)
//	for {
//		e, err := live.Next(ctx)
//		if e.Kind == client.EventHint {
//			page, err := live.Pull(ctx, client.PullRequest{Conversation: e.Conversation, After: &last, Told: e.Seq})
//		}
//	}
package client
