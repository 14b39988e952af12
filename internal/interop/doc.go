// Package interop has no code but tests: yonder and programs that are not yonder's call each
// other, over every protocol there is, on one port of one server.
//
// Some peers are programs of other languages. [node] and a browser are run if they are found;
// to have them all:
//
//	apt-get install chromium netcat-openbsd curl nodejs npm
//	npm ci --ignore-scripts
//
// A test whose program is missing is skipped, and fails if YONDER_CI is set.
//
// [node]: https://nodejs.org
package interop
