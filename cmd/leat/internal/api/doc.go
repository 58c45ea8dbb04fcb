// Package api is what Leat shows on `listen`: the Connect services (gRPC, gRPC-Web and HTTP+JSON from
// one handler), server-sent events, schemas, metrics, health.
//
// Words: a route is a path of the HTTP server or a procedure of a service; [routes] lists each with the
// role that it needs, and nothing is served that is not in it. An actor is who calls: the name of a token, or
// "loopback" where no tokens are configured. What the API shows and changes is behind [Backend].
package api
