"What tests of several files do; nothing heavy is imported before it is needed"


def command(*args):
    "The command in this process: (exit code, output, complaints); what a user would see as a traceback is raised"
    from click.testing import CliRunner

    from ser_nb.command_line import main
    done = CliRunner().invoke(main, [str(a) for a in args], prog_name='ser-nb')
    if done.exception and not isinstance(done.exception, SystemExit): raise done.exception
    assert done.exit_code in (0, 1, 2) and 'Traceback' not in done.stderr, done.stderr
    return done.exit_code, done.stdout, done.stderr
