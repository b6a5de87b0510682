% daemon
# Whatever listens there and is no daemon: the command says what was wrong with the answer.
$ cistern guest show text
!~ cistern guest show: /.*/control\.sock: the answer is not a JSON object
? 1

$ cistern guest show list
!~ cistern guest show: /.*/control\.sock: the answer is not a JSON object
? 1

$ cistern guest show nothing
!~ cistern guest show: /.*/control\.sock: empty answer
? 1

$ cistern guest show no-guest
!~ cistern guest show: /.*/control\.sock: the answer has no guest
? 1

$ cistern guest set no-guest --pinned no
!~ cistern guest set: /.*/control\.sock: the answer has no guest
? 1

$ cistern guest show no-reason
!~ cistern guest show: /.*/control\.sock: status 500 without an error object
? 1

$ cistern guest show teapot --json
{
  "error": {
    "code": "teapot",
    "message": "short and stout"
  }
}
! cistern guest show: short and stout
? 1

$ cistern guest rm part
!~ cistern guest rm: /.*/control\.sock: the daemon hung up before it answered
? 1

$ cistern guest rm hangs-up
!~ cistern guest rm: /.*/control\.sock: the daemon hung up before it answered
? 1

$ cistern guest show ssh
!~ cistern guest show: /.*/control\.sock: \S.*
? 1
