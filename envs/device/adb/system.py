"""The programs of the phone's shell that start apps and say what runs: `am`, `pm`, `dumpsys`, `wm`, `getprop`, ..."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

from ..apps.app import App
from ..handset.simulated_phone import Phone
from ..screen.widgets import HEIGHT, WIDTH
from .commands import DENSITY, Command, Handset
from .shell import CommandError, Io

_FIRST_PID = 2000


def _app(phone: Phone, package: str) -> App | None:
    return next((app for app in phone.apps.values() if app.package == package), None)


def _component(phone: Phone) -> str:
    package, activity = phone.current_activity()
    return f"{package}/{package}{activity}"


def _pid(phone: Phone, package: str) -> int:
    return _FIRST_PID + [app.package for app in phone.apps.values()].index(package)


# Apps


def am(handset: Handset, args: list[str], io: Io) -> int:
    """`am start|force-stop|stack list|broadcast|...`"""
    match args:
        case ["start" | "start-activity", *rest]:
            return _start(handset.phone, rest, io)
        case ["force-stop" | "kill" | "stop-app", *_, package]:
            force_stop(handset.phone, package)
        case ["stack" | "task", "list"]:
            io.out(_stacks(handset.phone))
        case ["broadcast", *_]:
            io.out("Broadcasting: Intent\nBroadcast completed: result=0\n")
        case ["get-current-user"]:
            io.out("0\n")
        case ["startservice" | "start-foreground-service" | "instrument" | "kill-all" | "wait-for-broadcast-idle", *_]:
            pass
        case _:
            raise CommandError(f"Error: unknown command '{' '.join(args[:1])}'", 255)
    return 0


def _start(phone: Phone, args: list[str], io: Io) -> int:
    """Start what is named by component, package or action; data of an intent is not looked at."""
    options = dict(itertools.pairwise(args))
    target = options.get("-n", "") or options.get("-p", "") or (args[-1] if args and "/" in args[-1] else "")
    package = target.partition("/")[0]
    action = options.get("-a", "")
    if not package and action.startswith("android.settings"):
        package = "org.rollwright.settings"
    elif not package and options.get("-d", "").startswith(("http://", "https://")):
        package = "org.rollwright.browser"
    elif not package and "android.intent.category.HOME" in args:
        phone.key("HOME")
        io.out(f"Starting: Intent {{ act={action} cat=[android.intent.category.HOME] }}\n")
        return 0
    io.out(f"Starting: Intent {{ {f'act={action} ' if action else ''}cmp={target or package} }}\n")
    if _app(phone, package) is None or not phone.open_app(package):
        io.err(f"Error type 3\nError: Activity class {{{target}}} does not exist.\n")
        return 1
    if "-W" in args:
        io.out(f"Status: ok\nLaunchState: COLD\nActivity: {_component(phone)}\nTotalTime: 0\nWaitTime: 0\nComplete\n")
    return 0


def force_stop(phone: Phone, package: str) -> None:
    """Close an app with all its screens. Nothing happens where it does not run."""
    app = _app(phone, package)
    if app is None or app.name not in phone.stacks or app.name == "Launcher":
        return
    if phone.foreground == app.name:
        phone.popup = {}
        phone.show_app("Launcher")
    del phone.stacks[app.name]
    phone.invalidate()


def _stacks(phone: Phone) -> str:
    names = [phone.foreground, *(name for name in phone.stacks if name != phone.foreground)]
    parts = []
    for number, name in enumerate(names):
        shown = (
            _component(phone) if number == 0 else f"{phone.apps[name].package}/{phone.apps[name].package}.MainActivity"
        )
        visible = "true" if number == 0 else "false"
        parts.append(
            f"Stack id={number} bounds=[0,0][{WIDTH},{HEIGHT}] displayId=0 userId=0\n"
            f"  taskId={number}: {shown} bounds=[0,0][{WIDTH},{HEIGHT}] userId=0 visible={visible}"
            f" topActivity=ComponentInfo{{{shown}}}\n"
        )
    return "\n".join(parts)


def monkey(handset: Handset, args: list[str], io: Io) -> int:
    """`monkey -p PACKAGE [-c CATEGORY] 1`: the way to start an app whose activity is not known."""
    package = dict(itertools.pairwise(args)).get("-p", "")
    if _app(handset.phone, package) is None:
        io.out("** No activities found to run, monkey aborted.\n")
        return 252
    handset.phone.open_app(package)
    io.out("Events injected: 1\n")
    return 0


def pm(handset: Handset, args: list[str], io: Io) -> int:
    """`pm list packages|path|grant|revoke ...`"""
    phone = handset.phone
    match args:
        case ["list", "packages", *rest]:
            words = [arg for arg in rest if not arg.startswith("-")]
            own = "-s" not in rest
            names = [app.package for app in phone.apps.values()] if own else ["android"]
            io.out("".join(f"package:{name}\n" for name in sorted(names) if all(word in name for word in words)))
        case ["path", package] if _app(phone, package):
            io.out(f"package:/data/app/{package}/base.apk\n")
        case ["grant" | "revoke", package, *_] if _app(phone, package):
            phone.store.put_setting("permission", package, "granted" if args[0] == "grant" else "denied")
            phone.invalidate()
        case ["clear", *_]:
            io.out("Failed\n")
            raise CommandError("pm clear: this phone keeps its apps' data; `rollwright power_on FILE` starts it afresh")
        case ["list", "users"]:
            io.out("Users:\n\tUserInfo{0:Owner:c13} running\n")
        case ["list", *_]:
            pass
        case ["path", _]:
            return 1
        case ["install" | "uninstall", *_]:
            io.out("Failure [INSTALL_FAILED_USER_RESTRICTED: this phone's apps are fixed]\n")
            return 1
        case _:
            raise CommandError(f"Error: unknown or impossible: pm {' '.join(args)}", 255)
    return 0


def cmd(handset: Handset, args: list[str], io: Io) -> int:
    """`cmd SERVICE ...`: the newer way to the same services."""
    services: dict[str, Command] = {"package": pm, "activity": am, "window": wm}
    match args:
        case ["package", "resolve-activity", *rest]:
            package = rest[-1] if rest else ""
            if _app(handset.phone, package) is None:
                io.out("No activity found\n")
                return 1
            io.out(f"priority=0 preferredOrder=0 match=0x0\n{package}/{package}.MainActivity\n")
        case [service, *rest] if service in services:
            return services[service](handset, rest, io)
        case ["input" | "settings" as service, *rest]:
            from .commands import COMMANDS

            return COMMANDS[service](handset, rest, io)
        case _:
            raise CommandError(f"cmd: Can't find service: {' '.join(args[:1])}", 20)
    return 0


# The display and the system


def wm(handset: Handset, args: list[str], io: Io) -> int:
    """`wm size`, `wm density`: to be read, not to be set."""
    match args:
        case ["size"]:
            io.out(f"Physical size: {WIDTH}x{HEIGHT}\n")
        case ["density"]:
            io.out(f"Physical density: {DENSITY}\n")
        case ["dismiss-keyguard" | "user-rotation", *_]:
            pass
        case _:
            raise CommandError("wm: this phone's display cannot be changed; there are: wm size, wm density", 255)
    return 0


def getprop(handset: Handset, args: list[str], io: Io) -> int:
    """`getprop [NAME [DEFAULT]]`"""
    known = handset.properties()
    if args:
        io.out(f"{known.get(args[0], args[1] if len(args) > 1 else '')}\n")
    else:
        io.out("".join(f"[{name}]: [{value}]\n" for name, value in sorted(known.items())))
    return 0


def dumpsys(handset: Handset, args: list[str], io: Io) -> int:
    """`dumpsys window|activity|display|input|power|battery|package|...`: the lines that clients read."""
    phone = handset.phone
    component = _component(phone)
    service = args[0] if args else ""
    match service:
        case "window":
            io.out(
                f"WINDOW MANAGER WINDOWS (dumpsys window windows)\n  Display: mDisplayId=0\n"
                f"    init={WIDTH}x{HEIGHT} {DENSITY}dpi cur={WIDTH}x{HEIGHT} app={WIDTH}x{HEIGHT}\n"
                f"  mCurrentFocus=Window{{5f3a1c0 u0 {component}}}\n"
                f"  mFocusedApp=AppWindowToken{{b1a7 token=Token{{c2 ActivityRecord{{a4e1 u0 {component} t1}}}}}}\n"
                f"  mCurrentRotation=ROTATION_0\n  isKeyguardShowing=false\n"
            )
        case "activity":
            io.out(_activity(phone, component))
        case "display":
            io.out(
                "DISPLAY MANAGER (dumpsys display)\n"
                "  mViewports=[DisplayViewport{type=INTERNAL, valid=true, isActive=true, displayId=0, "
                "uniqueId='local:0', "
                f"physicalPort=0, orientation=0, logicalFrame=Rect(0, 0 - {WIDTH}, {HEIGHT}), "
                f"physicalFrame=Rect(0, 0 - {WIDTH}, {HEIGHT}), deviceWidth={WIDTH}, deviceHeight={HEIGHT}}}]\n"
                "  mScreenState=ON\n"
            )
        case "input":
            io.out("INPUT MANAGER (dumpsys input)\n      SurfaceOrientation: 0\n")
        case "input_method":
            io.out("  mInputShown=false\n")
        case "power":
            io.out("  mWakefulness=Awake\n  mHoldingDisplaySuspendBlocker=true\nDisplay Power: state=ON\n")
        case "battery":
            io.out("Current Battery Service state:\n  AC powered: true\n  status: 5\n  level: 100\n  scale: 100\n")
        case "package":
            _package(phone, args[1] if len(args) > 1 else "", io)
        case "SurfaceFlinger":
            io.out('Display 0 (HWC display 0): port=0 pnpId=RLW displayName="simulated"\n')
        case "-l":
            io.out(
                "Currently running services:\n  activity\n  battery\n  display\n  input\n  package\n  power\n  window\n"
            )
        case _:
            io.err(f"Can't find service: {service}\n")
    return 0


def _activity(phone: Phone, component: str) -> str:
    package = phone.app.package
    return (
        "ACTIVITY MANAGER ACTIVITIES (dumpsys activity activities)\n"
        f"  mResumedActivity: ActivityRecord{{a4e1 u0 {component} t1}}\n"
        f"  topResumedActivity=ActivityRecord{{a4e1 u0 {component} t1}}\n"
        f"TASK {package} id=1 userId=0\n  ACTIVITY {component} a4e1 pid={_pid(phone, package)}\n    mResumed=true\n"
    )


def _package(phone: Phone, package: str, io: Io) -> None:
    if _app(phone, package) is None:
        io.out(f"Unable to find package: {package}\n")
        return
    io.out(
        f"Packages:\n  Package [{package}] (7c1):\n    versionCode=1 minSdk=30 targetSdk=30\n    versionName=1.0\n"
        "    signatures=PackageSignatures{7c1 version:2, signatures:[7c1]}\n    pkgFlags=[ HAS_CODE ]\n"
        "    firstInstallTime=2026-03-02 09:00:00\n    lastUpdateTime=2026-03-02 09:00:00\n"
    )


def date(handset: Handset, args: list[str], io: Io) -> int:
    """`date [+FORMAT]`: the phone's own clock."""
    now = datetime.fromtimestamp(handset.phone.now_ms / 1000, UTC)
    form = args[0][1:] if args and args[0].startswith("+") else "%a %b %d %H:%M:%S UTC %Y"
    io.out(now.strftime(form.replace("%s", str(handset.phone.now_ms // 1000)).replace("%N", "000000000")) + "\n")
    return 0


def svc(handset: Handset, args: list[str], io: Io) -> int:
    """`svc wifi|data|bluetooth enable|disable`: the switches in the settings."""
    names = {"wifi": "wifi_on", "data": "mobile_data", "bluetooth": "bluetooth_on"}
    match args:
        case [service, "enable" | "disable" as state] if service in names:
            handset.phone.store.put_setting("global", names[service], "1" if state == "enable" else "0")
            handset.phone.invalidate()
        case ["power", *_]:
            pass
        case _:
            raise CommandError("svc: usage: svc wifi|data|bluetooth enable|disable", 255)
    return 0


def ps(handset: Handset, args: list[str], io: Io) -> int:
    """`ps`, one line for each app that was opened."""
    phone = handset.phone
    rows = [f"u0_a{_pid(phone, phone.apps[name].package)} {_pid(phone, phone.apps[name].package):>6} 1 0 0 0 0 S "
            f"{phone.apps[name].package}" for name in phone.stacks]  # fmt: skip
    io.out("\n".join(["USER           PID  PPID VSZ RSS WCHAN ADDR S NAME", "root 1 0 0 0 0 0 S init", *rows, ""]))
    return 0


def pidof(handset: Handset, args: list[str], io: Io) -> int:
    """`pidof PACKAGE`"""
    running = {handset.phone.apps[name].package for name in handset.phone.stacks}
    if not args or args[0] not in running:
        return 1
    io.out(f"{_pid(handset.phone, args[0])}\n")
    return 0


def _says(text: str) -> Command:
    def say(handset: Handset, args: list[str], io: Io) -> int:
        io.out(text)
        return 0

    return say


SYSTEM_COMMANDS: dict[str, Command] = {
    "am": am,
    "cmd": cmd,
    "date": date,
    "dumpsys": dumpsys,
    "getprop": getprop,
    "id": _says("uid=2000(shell) gid=2000(shell) groups=2000(shell) context=u:r:shell:s0\n"),
    "ime": _says(""),
    "logcat": _says(""),
    "monkey": monkey,
    "pidof": pidof,
    "pm": pm,
    "ps": ps,
    "setprop": _says(""),
    "svc": svc,
    "uname": _says("Linux\n"),
    "whoami": _says("shell\n"),
    "wm": wm,
}
