"""
Killing the stages for real, and looking afterwards whether any message left twice or got lost.

    clock        one clock for every process of a run, which jumps when told to
    databases    fresh databases, and copies of them
    processes    starting a process, and having it end at an exact step
    providers    the providers' stand-ins in a process of their own: the ledger
    shop         a shop with a message for each customer
    workers      what the processes do: dispatch, plan, reconcile, import, publish
    storm        SIGKILL, SIGSTOP and jumps of the clock, drawn from a seed
    checker      the independent checker: the ledger against the database, none of the product's code
    stages       kills of import, publish, plan and reconcile
    records      what they work on
    results      table by table: whether an interrupted run left what an undisturbed one does
    __main__     the long run: `make torture`

What is random is drawn from the seed alone; what the machine makes of it (who is how far when the
signal comes) is not, so that a seed repeats the plan of a run and not its every moment. The deaths at
exact steps (`processes.Death`) are repeated exactly.
"""
