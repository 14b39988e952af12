package yonder

import (
	"context"
	"log/slog"
	"strings"
)

// AccessLog returns an interceptor for either end that logs each call once, when it is over, its
// streams included: the procedure, how long it took, the code, the error's text if there is one,
// and on the server's side the protocol and the peer's address. What the handler does not want of
// that, or only now and then, is its business. Nil: slog.Default().
//
// The level is Info for calls that succeeded and for what callers do ([Canceled],
// [InvalidArgument], [NotFound], [AlreadyExists], [Unauthenticated]); Error for what is broken
// ([Internal], [DataLoss]); and Warn for the rest, which says how much of it there is.
//
// Arguments, results and metadata are not logged, so that secrets among them are not; errors are,
// and must have none. What one says is cut after 1,000 bytes.
//
// As the first interceptor it logs what others refuse, too. Calls that no interceptor sees, such
// as those of unknown procedures, are in [Server.Stats].
func AccessLog(logger *slog.Logger) Interceptor {
	return func(next Handler) Handler {
		return func(ctx context.Context, call *Call) error {
			began, message := now(), "yonder: call made"
			attrs := make([]slog.Attr, 0, 7)
			attrs = append(attrs, slog.String("procedure", call.Procedure))
			if call.proc != nil {
				message = "yonder: call served"
				info := call.Info()
				attrs = append(attrs, slog.String("protocol", info.Protocol))
				if info.Conn != nil {
					attrs = append(attrs, slog.String("peer", addrOf(info.Conn)))
				}
			}
			if call.OneWay {
				attrs = append(attrs, slog.Bool("one_way", true))
			}
			write := func(err error) {
				l := logger
				if l == nil {
					l = slog.Default()
				}
				code := CodeOf(err)
				level := levelOf(code)
				if !l.Enabled(ctx, level) {
					return
				}
				attrs = append(attrs, slog.String("code", code.String()), slog.Duration("took", now()-began))
				if err != nil {
					text := err.Error()
					if len(text) > maxErrorText {
						text = strings.ToValidUTF8(text[:maxErrorText], "") + "..."
					}
					attrs = append(attrs, slog.String("error", text))
				}
				l.LogAttrs(ctx, level, message, attrs...)
			}
			returned := false
			defer func() {
				if !returned { // a panic, which the server logs
					write(errPanicked(call.Procedure))
				}
			}()
			err := next(ctx, call)
			if returned = true; err != nil {
				write(err)
			} else {
				call.OnEnd(write)
			}
			return err
		}
	}
}

// maxErrorText is how much of an error's text is logged, in bytes.
const maxErrorText = 1000

// levelOf returns the level at which a call is logged.
func levelOf(code Code) slog.Level {
	switch code {
	case 0, Canceled, InvalidArgument, NotFound, AlreadyExists, Unauthenticated:
		return slog.LevelInfo
	case Internal, DataLoss:
		return slog.LevelError
	}
	return slog.LevelWarn
}
