"""Rows with and without secrets and personal data, made at run time so that no scanner takes this file for a leak.

In:  a seed
Out: (family, text, value): value is what must go, "" in the harmless rows
"""

from __future__ import annotations

import base64
import random
import string
import uuid
from collections.abc import Callable, Iterator

Row = tuple[str, str, str]

ALNUM, HEX, B64 = string.ascii_letters + string.digits, "0123456789abcdef", string.ascii_letters + string.digits + "+/"
UPPER, LOWER, URL64 = string.ascii_uppercase + string.digits, string.ascii_lowercase + string.digits, ALNUM + "-_"

# (name, pieces): a piece is literal text or (alphabet, length); literals are cut so that the file holds no whole prefix
VENDORS: list[tuple[str, list[str | tuple[str, int]]]] = [
    ("aws", ["AK", "IA", (string.ascii_uppercase + "234567", 16)]),
    ("github", ["gh", "p_", (ALNUM, 36)]),
    ("github_app", ["gh", "s_", (ALNUM, 36)]),
    ("github_fine", ["github", "_pat_", (ALNUM, 22), "_", (ALNUM, 59)]),
    ("gitlab", ["gl", "pat-", (URL64, 20)]),
    ("gitlab_runner", ["gl", "rt-", (URL64, 20)]),
    ("slack_bot", ["xo", "xb-", (string.digits, 12), "-", (string.digits, 12), "-", (ALNUM, 24)]),
    ("slack_user", ["xo", "xp-", (string.digits, 11), "-", (string.digits, 11), "-", (string.digits, 12), "-", (HEX, 32)]),
    ("slack_hook", ["https://hooks.sl", "ack.com/services/T", (UPPER, 8), "/B", (UPPER, 8), "/", (ALNUM, 24)]),
    ("stripe", ["sk_", "live_", (ALNUM, 24)]),
    ("stripe_restricted", ["rk_", "live_", (ALNUM, 99)]),
    ("openai_old", ["s", "k-", (ALNUM, 20), "T3Blbk", "FJ", (ALNUM, 20)]),
    ("openai_project", ["s", "k-proj-", (URL64, 48), "T3Blbk", "FJ", (URL64, 48)]),
    ("anthropic", ["s", "k-ant-api03-", (URL64, 93), "AA"]),
    ("google_api", ["AI", "za", (URL64, 35)]),
    ("google_secret", ["GOC", "SPX-", (URL64, 28)]),
    ("sendgrid", ["S", "G.", (URL64, 22), ".", (URL64, 43)]),
    ("mailgun", ["ke", "y-", (HEX, 32)]),
    ("mailchimp", [(HEX, 32), "-u", "s12"]),
    ("twilio", ["S", "K", (HEX, 32)]),
    ("npm", ["np", "m_", (ALNUM, 36)]),
    ("pypi", ["py", "pi-AgEIcHlwaS5vcmc", (URL64, 120)]),
    ("rubygems", ["ruby", "gems_", (HEX, 48)]),
    ("docker", ["dck", "r_pat_", (URL64, 27)]),
    ("huggingface", ["h", "f_", (string.ascii_letters, 34)]),
    ("groq", ["gs", "k_", (ALNUM, 52)]),
    ("replicate", ["r", "8_", (ALNUM, 37)]),
    ("digitalocean", ["do", "p_v1_", (HEX, 64)]),
    ("databricks", ["da", "pi", (HEX, 32)]),
    ("vault", ["hv", "s.", (URL64, 95)]),
    ("doppler", ["d", "p.pt.", (ALNUM, 43)]),
    ("shopify", ["shp", "at_", (HEX, 32)]),
    ("square", ["sq0", "csp-", (URL64, 43)]),
    ("atlassian", ["ATA", "TT3", (URL64, 180)]),
    ("linear", ["lin_", "api_", (ALNUM, 40)]),
    ("notion", ["nt", "n_", (ALNUM, 46)]),
    ("airtable", ["pa", "t", (ALNUM, 14), ".", (HEX, 64)]),
    ("postman", ["PM", "AK-", (HEX, 24), "-", (HEX, 34)]),
    ("newrelic", ["NR", "AK-", (UPPER, 27)]),
    ("grafana", ["gl", "sa_", (ALNUM, 32), "_", (HEX, 8)]),
    ("sentry", ["sntr", "yu_", (HEX, 64)]),
    ("telegram", [("123456789", 9), ":AA", (URL64, 33)]),
    ("discord", ["M", (ALNUM, 23), ".", (URL64, 6), ".", (URL64, 27)]),
    ("tailscale", ["ts", "key-auth-", (ALNUM, 12), "CNTRL-", (ALNUM, 32)]),
    ("age", ["AGE-SEC", "RET-KEY-1", ("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58)]),
]
CONTEXTS = [
    'TOKEN = "{}"',
    "token: {}",
    "curl -H 'Authorization: Bearer {}' https://api.acme.org/v1",
    "    client = Client('{}', timeout=3)",
    "# old one was {}",
    'print(f"using {} for now")',
    "https://api.acme.org/hook?k={}&x=1",
    '{{"a": "{}"}}',
]

ASSIGNMENTS = [
    'password = "{}"',
    "password='{}'",
    'PASSWORD: str = "{}"',
    'DB_PASSWORD = b"{}"',
    '    "password": "{}",',
    "    'db_password': '{}',",
    'connect(host="db", user="joe", password="{}")',
    'const apiSecret = "{}";',
    "let adminPassword = '{}'",
    'String dbPassword = "{}";',
    'passwd := "{}"',
    "  :password => '{}',",
    "define('DB_PASSWORD', '{}');",
    "$config['db_pass'] = '{}';",
    "password: {}",
    '  password: "{}"',
    "DB_PASSWORD={}",
    "export SMTP_PASSWORD={}",
    "spring.datasource.password={}",
    "ALTER USER joe WITH PASSWORD '{}';",
    "CREATE USER 'joe'@'%' IDENTIFIED BY '{}';",
    "mysqldump --user=joe --password={} db",
    "tool login --username joe --password {}",
    "Server=db;Database=app;User Id=joe;Password={};Encrypt=true",
    "<password>{}</password>",
    '<add key="ClientSecret" value="{}"/>',
    'driver.setPassword("{}")',
    'if password == "{}":',
    "https://joe:{}@git.acme.org/app.git",
    "postgres://joe:{}@db.acme.org:5432/app",
    '{{\\"password\\": \\"{}\\"}}',
    'os.environ["DB_PASSWORD"] = "{}"',
    'os.environ.setdefault("API_SECRET", "{}")',
    'password = os.getenv("DB_PASSWORD", "{}")',
    "machine git.acme.org login joe password {}",
]
KEYED = [
    'SECRET_KEY = "{}"',
    'api_key = "{}"',
    "apikey: {}",
    'aws_secret_access_key = "{}"',
    "AWS_SECRET_ACCESS_KEY={}",
    '  "client_secret": "{}"',
    'headers = {{"X-Api-Key": "{}"}}',
    'auth_token = "{}"',
    'ACCESS_TOKEN="{}"',
    "token = '{}'",
    "encryption_key: '{}'",
    "DefaultEndpointsProtocol=https;AccountName=app;AccountKey={}",
    "//registry.acme.org/:_authToken={}",
    "https://api.acme.org/v1?api_key={}",
]


def _draw(rng: random.Random, pieces: list[str | tuple[str, int]]) -> str:
    return "".join(piece if isinstance(piece, str) else "".join(rng.choices(piece[0], k=piece[1])) for piece in pieces)


def _password(rng: random.Random) -> str:
    word = rng.choice(["Winter", "dragon", "Kestrel", "monsoon", "Harbor", "pepper"])
    return rng.choice(
        [
            f"{word}{rng.randint(10, 9999)}!",
            f"{word}@{rng.randint(100, 999)}",
            "".join(rng.choices(ALNUM + "!#%^*-_", k=rng.randint(10, 18))) + str(rng.randint(0, 9)),
            f"{word.lower()}-{rng.choice(['river', 'stone', 'cloud'])}-{rng.randint(10, 99)}",
        ]
    )


def _key(rng: random.Random) -> str:
    return rng.choice(
        [
            _draw(rng, [(HEX, 32)]),
            _draw(rng, [(ALNUM, 40)]),
            _draw(rng, [(URL64, 43)]),
            _draw(rng, [(B64, 86)]) + "==",
            _draw(rng, [(HEX, 64)]),
        ]
    )


def _pem(rng: random.Random, kind: str) -> tuple[str, str]:
    body = base64.b64encode(rng.randbytes(600)).decode()
    lines = "\n".join(body[at : at + 64] for at in range(0, len(body), 64))
    return f"-----BEGIN {kind}PRIV" + f"ATE KEY-----\n{lines}\n-----END {kind}PRIV" + "ATE KEY-----", lines


def secret_rows(seed: int) -> Iterator[Row]:
    """One secret per row."""
    rng = random.Random(seed)
    for name, pieces in VENDORS:
        for context in rng.sample(CONTEXTS, 4):
            value = _draw(rng, pieces)
            yield (
                "vendor token",
                context.format(value),
                value.removeprefix("https://hooks.sl" + "ack.com/services/") if name == "slack_hook" else value,
            )
    for template in ASSIGNMENTS:
        for _ in range(4):
            value = _password(rng).replace("#", "7") if "://" in template else _password(rng)
            yield "assigned password", template.format(value), value
    for template in KEYED:
        for _ in range(4):
            value = _key(rng) if "AccountKey" not in template else _draw(rng, [(B64, 86)]) + "=="
            yield "assigned key", template.format(value), value
    for kind in ("RSA ", "EC ", "", "OPENSSH ", "ENCRYPTED "):
        text, value = _pem(rng, kind)
        yield "private key", f'KEY = """{text}"""\n', value
        yield "private key", f"data:\n  key: |\n    {text.replace(chr(10), chr(10) + '    ')}\nnext: 1\n", value.replace("\n", "\n    ")
        yield "private key", '{"private_key": "' + text.replace("\n", "\\n") + '\\n"}', value.replace("\n", "\\n")
    for _ in range(20):
        value = _draw(rng, [(URL64, 40)])
        yield "random string", rng.choice(["x = ['{}', 1]", 'send("{}")', "return '{}'"]).format(value), value
    for _ in range(10):
        head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
        body = base64.urlsafe_b64encode(f'{{"sub":"{rng.getrandbits(64)}","iat":{rng.getrandbits(31)}}}'.encode()).decode().rstrip("=")
        value = f"{head}.{body}.{_draw(rng, [(URL64, 43)])}"
        yield "jwt", rng.choice(["cookie: session={}", "Authorization: Bearer {}", 'jwt = "{}"']).format(value), value


def harmless_rows(seed: int) -> Iterator[Row]:
    """What looks like a secret and is none."""
    rng = random.Random(seed)

    def hexes(size: int) -> str:
        return _draw(rng, [(HEX, size)])

    makers: list[Callable[[], str]] = [
        lambda: f'md5 = "{hexes(32)}"',
        lambda: f'EXPECTED_SHA256 = "{hexes(64)}"',
        lambda: f'    "{hexes(40)}",',
        lambda: f'COMMIT = "{hexes(40)}"',
        lambda: f'      "integrity": "sha512-{_draw(rng, [(B64, 86)])}==",',
        lambda: f'checksum = "{hexes(64)}"',
        lambda: f"golang.org/x/net v0.1.0 h1:{_draw(rng, [(B64, 43)])}=",
        lambda: f"    --hash=sha256:{hexes(64)} \\",
        lambda: f"      uses: actions/checkout@{hexes(40)}",
        lambda: f"git+https://git.acme.org/a/b@{hexes(40)}",
        lambda: f"FROM python@sha256:{hexes(64)}",
        lambda: f'"{uuid.UUID(int=rng.getrandbits(128), version=4)}"',
        lambda: f'request_id = "{uuid.UUID(int=rng.getrandbits(128), version=4)}"',
        lambda: f'etag: "{hexes(32)}"',
        lambda: f"index {hexes(7)}..{hexes(7)} 100644",
    ]
    for maker in makers:
        for _ in range(6):
            yield "digest or id", maker(), ""
    for line in PLAIN.splitlines():
        if line.strip():
            yield "look-up, placeholder or name", line, ""


PLAIN = r"""
password = os.environ["DB_PASSWORD"]
password = os.getenv("DB_PASSWORD", "")
password = getpass.getpass("Password: ")
api_key = config.get("api_key")
token = get_token(user, scope="read")
token = tokens[0]
secret = settings.SECRET_KEY
password: str
password: str | None = None
password: Optional[SecretStr] = Field(default=None, repr=False)
def login(username: str, password: str) -> None:
self.password = password
client = Client(api_key=api_key, token=self._token)
password=${DB_PASSWORD}
password: {{ vault_password }}
password: "{{ lookup('env', 'PW') }}"
"password": "<your-password>"
"password": "your_password_here"
password = "changeme"
password = "********"
API_KEY=xxxxxxxxxxxxxxxxxxxx
api_key: <API_KEY>
api_key = "YOUR_API_KEY"
SECRET_KEY = "replace-me-with-something"
AWS_ACCESS_KEY_ID = AKIAIOSFODNN7EXAMPLE
aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY
tokenizer.pad_token = "<|endoftext|>"
eos_token="</s>", unk_token="<unk>"
token_type = "access_token_v2"
primary_key = "user_id_v2"
sort_key="created_at"
key = "model.layers.0.self_attn.q_proj.weight"
cache_key = f"user:{user_id}:v2"
KEYS = ["ArrowUp1", "ArrowDown2"]
password_field = "login.password2"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_USER_MODEL = "accounts.User2"
auth = HTTPBasicAuth(user, password)
raise ValueError("Invalid token: expected 3 parts")
help="API token (default: $GITHUB_TOKEN)"
parser.add_argument("--password", help="The password, e.g. from a file")
secretKeyRef: {name: db-secret2, key: password}
secret: 'required|string|min:8'
label_password = "Enter your password:"
"password": "The two password fields didn't match."
key=lambda item: item.x2
sorted(items, key=itemgetter1)
keys = "abcdefghijklmnopqrstuvwxyz0123456789"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
url = "https://user:password@localhost/db"
url = f"postgres://{user}:{password}@{host}/{db}"
DATABASE_URL=postgres://$USER:$PASS@db/app
redis://:${REDIS_PASSWORD}@redis:6379/0
http://localhost:8080/path@2x.png
sk-learn style estimators: sk-estimator-html-representation-of-pipelines
npm_config_registry = "npm_lifecycle_event_for_everybody"
css = ".sk-toggleable__label-arrow-before-content-container"
-----BEGIN CERTIFICATE-----
-----BEGIN PUBLIC KEY-----
path = "/usr/lib/python3/dist-packages/SomeLongPackageName/with_many_parts"
name = "ThisIsAVeryLongCamelCaseClassNameForTestingPurposes2"
msg = "Bearer token required"
Authorization: Bearer <token>
Authorization: Bearer $TOKEN
headers = {"Authorization": f"Bearer {token}"}
Basic authentication123 is not supported
sha256sum = hashlib.sha256(data).hexdigest()
token = "".join(random.choices(string.ascii_letters, k=32))
if token == "identifier":
KEY_F12 = "keyboard.F12"
access_key = "access_key_id"
session_key = 'session_key_v1'
jwt_algorithm = "HS256"
token_url = "https://auth.acme.org/oauth2/token"
key_file = "/etc/ssl/private/server.key2"
passphrase = prompt("Passphrase for key: ")
credentials = service_account.Credentials.from_service_account_file("sa.json")
password = request.form["password1"]
PRIVATE_KEY_PATH=/run/secrets/key1.pem
secretName: app-tls-secret-v2
"""


FIRST = ["maria", "jürgen"[:1] + "uergen", "wei", "fatima", "olu", "dmitri", "carlos", "aiko"]
LAST = ["lindqvist", "okafor", "zhang", "petrov", "moreau", "haddad", "nakamura", "kowalski"]
HOSTS = ["lindstrom-labs.se", "mail.kyoto-u.ac.jp", "gmail.com", "orbit.io", "zentrum.de", "uni.edu", "nordwind.co.uk", "astro.dev"]


def personal_rows(seed: int) -> Iterator[Row]:
    """One piece of personal data per row."""
    rng = random.Random(seed)
    for _ in range(40):
        first, last = rng.choice(FIRST), rng.choice(LAST)
        value = (
            rng.choice([f"{first}.{last}", f"{first[0]}{last}", f"{last}{rng.randint(1, 99)}", f"{first}+git", f"{first}_{last}"])
            + "@"
            + rng.choice(HOSTS)
        )
        text = rng.choice(
            [
                "# Author: {} wrote this",
                '__email__ = "{}"',
                "Contact <{}>.",
                "mailto:{}",
                "maintainers = [{{name='M', email='{}'}}]",
                "write to {},",
                "\\n{}\\n",
                "({})",
            ]
        )
        yield "email", text.format(value), value
    for _ in range(40):
        value = (
            f"{rng.choice([23, 45, 52, 81, 93, 104, 142, 185, 195, 213])}.{rng.randint(1, 254)}.{rng.randint(0, 255)}.{rng.randint(1, 254)}"
        )
        text = rng.choice(
            [
                'HOST = "{}"',
                "http://{}:8080/x",
                "ssh root@{}",
                "server {};",
                '["{}", 22]',
                "ping {}",
                "{} - - [10/Oct/2000] GET",
                "allow={}/32",
                "  - {}",
                "IP: {}.",
            ]
        )
        yield "ipv4", text.format(value), value
    for _ in range(40):
        groups = [f"{rng.getrandbits(16):x}" for _ in range(6)]
        value = rng.choice(
            [
                f"2a01:{rng.getrandbits(16):x}:{':'.join(groups)}",
                f"2a02:{groups[0]}:{groups[1]}::{groups[2]}",
                f"2600:1f18:{groups[0]}:{groups[1]}::1",
                f"2a03:2880:f1{rng.randint(10, 99)}:83:face:b00c:0:25de".upper(),
            ]
        )
        text = rng.choice(
            ["addr = '{}'", "http://[{}]:443/", "listen [{}]:80;", "{}/64", "ping6 {}", "AAAA {}", "inet6 {} prefixlen 64", "from={},"]
        )
        yield "ipv6", text.format(value), value
    for _ in range(40):
        value = rng.choice(
            [rng.choice(FIRST) + rng.choice("klmz"), rng.choice(FIRST)[0] + rng.choice(LAST), f"{rng.choice(FIRST)}.{rng.choice(LAST)}"]
        )
        text = rng.choice(
            [
                'path = "/home/{}/project/x.py"',
                "/Users/{}/Library/Caches",
                r"C:\Users\{}\AppData",
                r'"C:\\Users\\{}\\Desktop"',
                'File "/home/{}/app/main.py", line 3',
                "file:///home/{}/x.html",
                "-I/home/{}/include",
                "HOME=/home/{}",
                "C:/Users/{}/code",
                "/mnt/c/Users/{}/x",
                "scp a host:/home/{}/b",
            ]
        )
        yield "user path", text.format(value), value
    for _ in range(15):
        value = f"{rng.choice(FIRST).title()} {rng.choice(LAST).title()}"
        yield "git trailer", f"{rng.choice(['Signed-off-by', 'Co-authored-by', 'Reviewed-by', 'Author'])}: {value} <x@example.com>", value


IMPERSONAL = r"""
version = "4.12.33.101"
Mozilla/5.0 (X11) Chrome/91.0.4472.124 Safari/537.36
numpy==1.21.2.1
FileVersion 23.45.12.7
ASSEMBLY_VERSION: 45.2.33.9
oid = "1.3.6.1.4.1.311"
OID_X = "2.5.29.15"
release 52.12.1.4 of the firmware
host = "127.0.0.1"
bind 0.0.0.0:80
10.0.0.1 192.168.1.1 172.16.3.4
dns = ["8.8.8.8", "1.1.1.1", "8.8.4.4"]
"192.0.2.44", "198.51.100.7", "203.0.113.9"
mask 255.255.255.0
x = a[1:2] + b[::2]
std::vector<int> v; abc::def::ghi();
at 12:34:56.789
2023:10:11 10:11:12
00:1b:44:11:3a:b7
fe80::1 and ::1 and fd00::1
2001:db8::8a2e:370:7334
2001:4860:4860::8888
git@github.com:acme/app.git
noreply@github.com
12345+octo@users.noreply.github.com
user@example.com
someone@example.org
foo@localhost
@app.route("/x")
y = x@w.T
a@b.mean()
pkg@1.2.3
icon@2x.png
getty@tty1.service
user@host:~$ ls
/home/user/project
/home/$USER/x
/home/{user}/x
/home/<name>/x
/Users/runner/work
C:\Users\Public\x
https://acme.org/home/products
GET /users/octocat/repos
https://api.github.com/users/octocat
/home/ubuntu/app
/home/runner/work/repo
C:\Users\%USERNAME%\x
app.get("/users/profile", f)
Signed-off-by: dependabot[bot] <support@example.com>
"""


def impersonal_rows() -> Iterator[Row]:
    """What looks like personal data and is none."""
    for line in IMPERSONAL.splitlines():
        if line.strip():
            yield "look-alike", line, ""
