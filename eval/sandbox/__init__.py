"""Programs nobody has read, run so that they can neither harm the machine nor claim a pass.

A program under judgement is text before the hole, completion, text after the hole; a test says whether it works. The two run in
two processes that only pass plain values:

    judge  --problem, completion-->  check  --calls: plain values-->  program
           <------- verdict -------         <-- answers: plain values --

`program` runs the untrusted text and answers calls. `check` runs the test, which the untrusted process never holds, and compares the
answers where the untrusted text never ran. So a pass means one thing: the test, untouched, came to its end on the answers it got.
An exit code, a patched builtin or `assert`, a value that claims to equal everything, a look through frames or the heap for what the test
expects: none of them reaches the process that decides. What is left to a cheat is to answer right.

Verdicts are those of the published evaluator but where text claims a pass in one of these ways, and where a test compares what is not
carried over: an array, a date, an object of the program's own class equals only itself here, and the verdict says so. A helper that the
test calls is the problem's own where it stands before the hole, the completion's where it has the hole or stands behind it. Not held off:
a bug in the kernel, and a test too weak to tell right from wrong.

    pool       in the judge: starts the workers, hands out programs, collects verdicts, replaces a worker that died
    worker     a bare interpreter with the common imports; forks one check and one program for each verdict, watches the clock, kills both
    check      the trusted side: runs the test against the program
    program    the untrusted side
    wire       plain values between the two
    confine    what each process may do: namespaces, limits, capabilities; says which of them held
    view       the file system they see: the standard library read-only, an empty /tmp, nothing else
    landlock, seccomp, kernel   the system calls for it

Everything but `pool` runs in an interpreter without site-packages (`python -I -S`) and imports the standard library only.
"""
