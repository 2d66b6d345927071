"""Secrets as they stand in code, configuration, shells and prose, by the way they are written down.

In:  nothing
Out: ROWS, a table in the language of `template`; each template gives rows with other values
"""

ROWS = r"""
@@@ keyword_code
@@ src/db.go
	pass¦word := "{=pw}"
	dbPass¦word := `{=pw_symbols}`
const adminPass¦wd = "{=pw_mixed}"
	if pass¦word == "{=pw_digits}" {
	cfg := Config{User: "{~word}", Pass¦word: "{=pw}"}
	opts.SetAuth(options.Credential{Username: "{~word}", Pass¦word: "{=pw_symbols}"})
	os.Setenv("DB_PASS¦WORD", "{=pw}")
@@ src/main/java/Login.java
String pass¦word = "{=pw}";
private static final String DB_PASS¦WORD = "{=pw_symbols}";
char[] storePass¦word = "{=pw_mixed}".toCharArray();
user.setPass¦word("{=pw}");
props.put("pass¦word", "{=pw_digits}");
Connection c = DriverManager.getConnection(url, "{~word}", "{=pw_symbols}");
@Value("${db.pass¦word:{=pw_mixed}}") String pass¦word;
@@ src/login.js
const pass¦word = '{=pw}';
var secr¦et = "{=pw_symbols}"
let user = { name: '{~word}', pass: '{=pw}' };
if (req.body.pass¦word === '{=pw_mixed}') {
app.use(session({ secr¦et: '{=passphrase}', resave: false }))
await page.type('#pass¦word', '{=pw}')
jwt.sign(payload, '{=pw_mixed}', { expiresIn: '1h' })
@@ src/Program.cs
string pass¦word = "{=pw}";
var credential = new NetworkCredential("{~word}", "{=pw_symbols}");
private const string Secr¦etKey = "{=w32}";
options.Pass¦word = @"{=pw_symbols}";
@@ src/login.php
$pass¦word = '{=pw}';
define('DB_PASS¦WORD', '{=pw_symbols}');
'pass¦word' => '{=pw}',
$config['db']['pass¦wd'] = "{=pw_mixed}";
$this->pass¦word = "{=pw}";
mysqli_connect("{~host}", "{~word}", "{=pw_symbols}", "{~noun}");
@@ lib/user.rb
pass¦word = '{=pw}'
:pass¦word => "{=pw_symbols}",
config.secr¦et_key = '{=h64}'
@admin_pass¦word = %q({=pw_mixed})
@@ src/users.py
pass¦word = "{=pw}"
PASS¦WORD: str = '{=pw_symbols}'
db_pass = '{=pw_mixed}'
DATABASES = {"default": {"USER": "{~word}", "PASS¦WORD": "{=pw_symbols}"}}
assert pass¦word == "{=pw}"
def connect(host, user="{~word}", pass¦word="{=pw}"):
login(user='{~word}', pass¦wd='{=pw_symbols}')
secr¦et = b"{=w24}"
pwd = u'{=pw}'
auth = ("{~word}", "{=pw_symbols}")
getpass_default = pass¦word or "{=pw_mixed}"
@@ Sources/App.swift
let pass¦word = "{=pw}"
static let clientSecr¦et: String = "{=w40}"
@@ src/Main.kt
val pass¦word = "{=pw}"
private const val API_SECR¦ET = "{=h40}"
@@ src/main.rs
let pass¦word = "{=pw_symbols}".to_string();
const SECR¦ET_KEY: &str = "{=w32}";
@@ src/main.c
static const char *pass¦word = "{=pw}";
#define ADMIN_PASS¦WORD "{=pw_mixed}"
@@ scripts/load.pl
my $pass¦word = '{=pw}';
my $dbh = DBI->connect($dsn, '{~word}', '{=pw_symbols}');
@@ src/Conf.scala
val pass¦word: String = "{=pw}"
@@ lib/app.ex
  pass¦word: "{=pw}",
@@ src/core.clj
{:user "{~word}" :pass¦word "{=pw_symbols}"}
@@ app/main.lua
local pass¦word = "{=pw}"
@@ src/form.m
NSString *pass¦word = @"{=pw}";
@@ macros/Module1.vb
Dim pass¦word As String = "{=pw}"
@@ R/connect.R
pass¦word <- "{=pw_mixed}"
@@@ keyword_escaped
@@ src/request.js
var body = "{\"user\": \"{~word}\", \"pass¦word\": \"{=pw_mixed}\"}";
const q = 'pass¦word=\'{=pw}\'';
@@ test/Fixture.java
String json = "{\"secr¦et\":\"{=w32}\"}";
@@ src/escape.py
pass¦word = "{=pw_escaped}"
@@ log.json
{"msg": "{\"to¦ken\": \"{=w40}\"}"}
@@ src/page.html
<div data-config="{&quot;pass¦word&quot;: &quot;{=pw_mixed}&quot;}"></div>
<a href="/login?user={~word}&amp;pass¦word={=pw_mixed}">in</a>
@@ run.sh
curl -d "{\"user\":\"{~word}\",\"pass¦word\":\"{=pw_mixed}\"}" https://{~host}/login
ssh {~host} "mysql -u root --pass¦word='{=pw_symbols}' -e 'show tables'"
@@ src/Query.cs
var xml = "<user pass¦word=\"{=pw_mixed}\" />";
@@@ keyword_config
@@ config/database.yml
pass¦word: {=pw}
  pass¦word: "{=pw_symbols}"
db_pass¦word: '{=pw_mixed}'
secr¦et: {=w32}
  passphrase: {=passphrase}
- { name: {~word}, pass¦word: {=pw_mixed} }
@@ app.properties
spring.datasource.pass¦word={=pw}
db.pass¦word = {=pw_symbols}
javax.net.ssl.keyStorePass¦word={=pw_mixed}
api.secr¦et:{=w32}
@@ setup.ini
pass¦word = {=pw}
passwd={=pw_symbols}
SMTP_PASS¦WORD = "{=pw}"
@@ config.toml
pass¦word = "{=pw_symbols}"
auth_to¦ken = '{=w40}'
@@ .env
DB_PASS¦WORD={=pw}
POSTGRES_PASS¦WORD='{=pw_symbols}'
ADMIN_PASS={=pw_mixed}
SECR¦ET={=w48}
API_KE¦Y="{=l32}"
REDIS_PASS¦WORD="{=pw}" # cache
PASS={=pw_digits}
@@ config.json
"pass¦word": "{=pw}",
  "dbPass¦word" : "{=pw_symbols}",
{"host":"{~host}","user":"{~word}","pass¦word":"{=pw_mixed}","port":5432}
{"auth":{"secr¦et":"{=w40}"}}
@@ web.config
<add key="Pass¦word" value="{=pw}" />
<pass¦word>{=pw}</pass¦word>
<user name="{~word}" pass¦word="{=pw_mixed}" roles="manager-gui"/>
<property name="connection.pass¦word">{=pw_mixed}</property>
<Secr¦et>{=w32}</Secr¦et>
@@ nginx.conf
set $auth_to¦ken "{=w32}";
requirepass {=pw_mixed}
@@ main.tf
  pass¦word = "{=pw_mixed}"
  administrator_login_pass¦word = "{=pw_symbols}"
  secr¦et_key = "{=b40}"
variable "db_pass¦word" { default = "{=pw}" }
@@ group_vars/all.yml
ansible_ssh_pass: {=pw}
ansible_become_pass¦word: "{=pw_symbols}"
vault_db_pass¦word: {=pw_mixed}
@@ hosts
{~host} ansible_user={~word} ansible_pass¦word={=pw_mixed}
@@ docker-compose.yml
      - MYSQL_ROOT_PASS¦WORD={=pw}
      POSTGRES_PASS¦WORD: {=pw_mixed}
@@ .travis.yml
    - API_TO¦KEN={=w32} make deploy
@@ .github/workflows/ci.yml
          pass¦word: {=pw_mixed}
          to¦ken: "{=w40}"
@@ application.conf
db { user = {~word}, pass¦word = {=pw_mixed} }
@@ users.plist
<key>Pass¦word</key><string>{=pw}</string>
@@@ keyword_pair
@@ src/test/AuthTest.java
params.add(new BasicNameValuePair("pass¦word", "{=pw}"));
request.addHeader("X-Api-Ke¦y", "{=l32}");
map.put("secr¦et", "{=w32}");
@@ test/form.js
formData.append('pass¦word', '{=pw}')
["pass¦word", "{=pw_mixed}"],
expect(login('{~word}', { pass¦word: '{=pw_symbols}' })).toBe(true)
@@ src/set.py
config.set("db", "pass¦word", "{=pw}")
("pass¦word", "{=pw_symbols}"),
monkeypatch.setenv("API_TO¦KEN", "{=w40}")
@@ src/set.go
	req.Header.Set("X-Auth-To¦ken", "{=w40}")
	form.Add("pass¦word", "{=pw}")
	q.Set("api_ke¦y", "{=h32}")
@@ src/set.php
curl_setopt($ch, CURLOPT_USERPWD, "{~word}:{=pw_mixed}");
@@@ access_key
@@ src/access.py
aws_secr¦et_access_key = "{=b40}"
boto3.client("s3", aws_access_key_id=KEY_ID, aws_secr¦et_access_key="{=b40}")
SIGNING_KE¦Y = "{=h64}"
ENCRYPTION_KE¦Y = b"{=base64:32}"
PRIVATE_KE¦Y = "0x{=h64}"
api_ke¦y = "{=uuid}"
AUTH_TO¦KEN = '{=h40}'
access_to¦ken="{=s64}"
fernet = Fernet("{=base64:32}")
hmac.new(b"{=w32}", msg, "sha256")
client_secr¦et = "{=s43}"
@@ .aws/credentials
aws_secr¦et_access_key = {=b40}
aws_session_to¦ken = {=b200}
@@ hardhat.config.js
accounts: ['0x{=h64}'],
mnemonic: '{=phrase}',
const web3key = '0x{=h64}';
@@ config/prod.yml
accessKe¦y: {=b40}
encryption_ke¦y: {=h32}
consumer_secr¦et: {=w50}
webhook_secr¦et: "{=h40}"
refresh_to¦ken: {=s100}
bot_to¦ken: {=w40}
@@ app.config.ts
apiKe¦y: '{=w32}',
authTo¦ken: "{=h64}",
secr¦etAccessKey: '{=b40}',
@ .s3cfg
access_key = AK¦IA{~216}
secr¦et_key = {=b40}
@@@ framework_key
@@ mysite/settings.py
SECR¦ET_KEY = 'django-insec¦ure-{=l50}'
SECR¦ET_KEY = "{=s50}"
app.secr¦et_key = b'{=w24}'
app.config['SECR¦ET_KEY'] = '{=h32}'
JWT_SECR¦ET_KEY = "{=w32}"
SALT = "{=w16}"
SECURITY_PASS¦WORD_SALT = "{=d39}"
WTF_CSRF_SECR¦ET_KEY = '{=pw_mixed}'
@@ config/secrets.yml
  secr¦et_key_base: {=h128}
  devise_pepper: {=h128}
@@ .env
APP_KEY=base64:{=base64:32}
NEXTAUTH_SECR¦ET={=base64:32}
SESSION_SECR¦ET={=w32}
COOKIE_KE¦Y={=h64}
@@ wp-config.php
define( 'AUTH_KEY',         '{=w64}' );
define('NONCE_SALT', '{=s64}');
@@ config/initializers/devise.rb
config.secr¦et_key = '{=h128}'
@@ app.js
app.use(cookieParser('{=w32}'))
keys: ['{=h40}'],
@@ Startup.cs
"Jwt": { "Ke¦y": "{=w40}" }
<machineKey validationKey="{=H128}" validation="SHA1" />
@@@ url
@@ .env
DATABASE_URL=postgres://{~word}:{=pw_url}@{~host}:5432/{~noun}
REDIS_URL=redis://:{=pw_url}@{~host}:6379/0
AMQP=amqp://{~word}:{=pw_url}@{~host}/%2f
@@ src/connect.py
create_engine("mysql+pymysql://{~word}:{=pw_url}@{~host}/{~noun}")
MongoClient('mongodb+srv://{~word}:{=pw_url}@{~host}/{~noun}?retryWrites=true')
requests.get("https://{~word}:{=pw_url}@{~host}/api")
@@ fetch.sh
git clone https://{~word}:{=w40}@{~host}/team/{~noun}.git
git clone https://{=w40}@{~host}/team/{~noun}.git
curl "https://{~host}/v1?api_ke¦y={=h32}&q={~word}"
wget "https://{~host}/get?user={~word}&pass¦word={=pw_mixed}"
curl ftp://{~word}:{=pw_mixed}@{~host}/pub
@@ src/Api.java
String url = "https://{~host}/feed?access_to¦ken={=s64}&page=2";
@@ .git/config
	url = https://{~word}:{=w40}@{~host}/team/{~noun}.git
@@ .git-credentials
https://{~word}:{=w40}@{~host}
@@ requirements.txt
--extra-index-url https://{~word}:{=w32}@{~host}/simple
@@ links.md
https://{~noun}.blob.core.windows.net/data?sv=2021-06-08&sp=r&sig={=s43}%3D
https://{~noun}.s3.amazonaws.com/f.zip?X-Amz-Expires=900&X-Amz-Signature={=h64}
@@@ webhook
@@ notify.py
URL = "https://hooks.sl¦ack.com/services/{=slack_hook}"
requests.post("https://discord.com/api/web¦hooks/{~d18}/{=s68}", json=body)
bot = telebot.TeleBot("{~d10}:{=AA_token}")
@@ config.yml
slack_url: https://hooks.sl¦ack.com/services/{=slack_hook}
teams: https://{~word}.webhook.off¦ice.com/webhookb2/{~uuid}@{~uuid}/IncomingWebhook/{=h32}/{~uuid}
@@ send.sh
curl -s "https://api.tele¦gram.org/bot{=telegram}/sendMessage" -d text=done
curl -X POST "https://hooks.zap¦ier.com/hooks/catch/{=zapier}/"
@@ alerts.json
"webhookUrl": "https://discordapp.com/api/web¦hooks/{~d18}/{=s68}"
{"url": "https://oapi.dingtalk.com/robot/send?access_to¦ken={=h64}"}
@@@ connection_string
@@ appsettings.json
"Default": "Server={~host};Database={~noun};User Id={~word};Pass¦word={=pw_mixed};Encrypt=true"
"Storage": "DefaultEndpointsProtocol=https;AccountName={~word};Account¦Key={=base64:64};EndpointSuffix=core.windows.net"
"Bus": "Endpoint=sb://{~word}.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccess¦Key={=base64:32}"
"Cosmos": "AccountEndpoint=https://{~word}.documents.azure.com:443/;Account¦Key={=base64:64};"
@@ web.config
<add name="Main" connectionString="Data Source={~host};uid={~word};pwd={=pw_mixed};" />
connectionString="server={~host};user={~word};pass¦word={=pw};database={~noun}"
@@ src/db.py
dsn = "host={~host} user={~word} pass¦word={=pw_mixed} dbname={~noun}"
conn = "Driver={ODBC Driver 17};Server={~host};UID={~word};PWD={=pw_mixed}"
jdbc = "jdbc:mysql://{~host}/{~noun}?user={~word}&pass¦word={=pw_mixed}"
jdbc = "jdbc:oracle:thin:{~word}/{=pw_mixed}@{~host}:1521:orcl"
@@ db.php
$dsn = 'mysql://{~word}:{=pw_url}@{~host}/{~noun}';
new PDO('mysql:host={~host};dbname={~noun}', '{~word}', '{=pw_symbols}');
@@@ sql
@@ init.sql
CREATE USER '{~word}'@'%' IDENTIFIED BY '{=pw_symbols}';
CREATE USER {~word} WITH PASS¦WORD '{=pw}';
ALTER USER {~word} IDENTIFIED BY "{=pw_mixed}";
ALTER ROLE {~word} WITH ENCRYPTED PASS¦WORD '{=pw_mixed}';
SET PASS¦WORD FOR '{~word}'@'localhost' = PASSWORD('{=pw_mixed}');
GRANT ALL ON {~noun}.* TO '{~word}'@'%' IDENTIFIED BY '{=pw}';
INSERT INTO users (name, pass¦word) VALUES ('{~word}', '{=pw_mixed}');
INSERT INTO settings VALUES ('smtp_pass¦word', '{=pw}');
UPDATE users SET pass¦word = '{=pw_symbols}' WHERE id = 1;
SELECT id FROM users WHERE login='{~word}' AND pass¦word='{=pw}';
CREATE LOGIN {~word} WITH PASS¦WORD = N'{=pw_symbols}';
CREATE SECRET s (TYPE S3, KEY_ID '{~u20}', SECR¦ET '{=b40}');
@@@ shell
@@ deploy.sh
export PASS¦WORD={=pw}
export DB_PASS¦WORD="{=pw_symbols}"
PGPASS¦WORD={=pw} psql -h {~host} -U {~word}
PASS='{=pw_mixed}'; mysql -u {~word} -p"$PASS"
mysql -u {~word} -p{=pw_mixed} {~noun}
mysqldump --user={~word} --pass¦word={=pw} {~noun} > dump.sql
redis-cli -h {~host} -a {=pw_mixed} ping
curl -u {~word}:{=pw_mixed} https://{~host}/status
curl --user "{~word}:{=pw}" -X DELETE https://{~host}/items/1
sshpass -p '{=pw_symbols}' ssh {~word}@{~host}
sshpass -p {=pw} scp build.tar {~word}@{~host}:/srv
docker login -u {~word} -p {=pw_mixed} {~host}
echo "{=pw}" | sudo -S systemctl restart nginx
echo '{~word}:{=pw_mixed}' | chpasswd
htpasswd -b /etc/nginx/.htpasswd {~word} {=pw}
openssl enc -aes-256-cbc -k {=pw_mixed} -in a -out b
openssl rsa -in key.pem -passin pass:{=pw}
ldapsearch -x -D "cn=admin,dc={~word},dc=org" -w {=pw_mixed}
ldapadd -D cn=admin -w '{=pw_symbols}' -f users.ldif
keytool -genkey -alias app -storepass {=pw} -keypass {~word}
jarsigner -storepass {=pw_mixed} app.jar release
smbclient //{~host}/share -U {~word}%{=pw_mixed}
net use Z: \\{~host}\share /user:{~word} {=pw_mixed}
az login --service-principal -u {~uuid} -p {=s34} --tenant {~uuid}
aws configure set aws_secr¦et_access_key {=b40}
vault login {=vault}
rsync --rsh="sshpass -p {=pw_mixed} ssh" src {~word}@{~host}:
npm config set //{~host}/:_authTo¦ken {=uuid}
zip -P {=pw_mixed} out.zip data
7z x -p{=pw_mixed} backup.7z
useradd -m -p '{=crypt:6}' {~word}
mongo --username {~word} --pass¦word {=pw} --authenticationDatabase admin
kubectl create secret generic db --from-literal=pass¦word={=pw_mixed}
./run.py --user {~word} --pass¦word {=pw_mixed} --verbose
app.exe /user:{~word} /pass¦word:{=pw}
@@ setup.ps1
$pass¦word = "{=pw}"
ConvertTo-SecureString "{=pw_symbols}" -AsPlainText -Force
$env:API_TO¦KEN = '{=w40}'
New-LocalUser {~word} -Pass¦word (ConvertTo-SecureString '{=pw_mixed}' -AsPlainText -Force)
@@ setup.bat
set DB_PASS¦WORD={=pw}
@@ Dockerfile
ENV DB_PASS¦WORD={=pw_mixed}
ENV API_TO¦KEN {=w40}
ARG NPM_TO¦KEN={=w36}
RUN echo "root:{=pw_mixed}" | chpasswd
@@ Jenkinsfile
environment { DEPLOY_PASS¦WORD = '{=pw_mixed}' }
@@@ auth_file
@@ .netrc
machine {~host} login {~word} pass¦word {=pw_mixed}
@@ .htpasswd
{~word}:{=apr1}
{~word}:{=bcrypt}
@@ .pgpass
{~host}:5432:{~noun}:{~word}:{=pw_mixed}
@@ .npmrc
//{~host}/:_authTo¦ken={=uuid}
_auth={=basic}
//{~host}/:_pass¦word={=b64_pw}
@ .pypirc
[private]
repository = https://{~host}/simple
username = {~word}
pass¦word = {=pw_mixed}
@ .docker/config.json
{
  "auths": {
    "{~host}": {
      "auth": "{=basic}"
    }
  }
}
@ nuget.config
<packageSourceCredentials>
  <Internal>
    <add key="Username" value="{~word}" />
    <add key="ClearTextPass¦word" value="{=pw_mixed}" />
  </Internal>
</packageSourceCredentials>
@ credentials.xml
<com.cloudbees.plugins.credentials.impl.UsernamePasswordCredentialsImpl>
  <id>deploy</id>
  <username>{~word}</username>
  <pass¦word>{=pw_symbols}</pass¦word>
</com.cloudbees.plugins.credentials.impl.UsernamePasswordCredentialsImpl>
@ settings.xml
<server>
  <id>releases</id>
  <username>{~word}</username>
  <pass¦word>{=pw_mixed}</pass¦word>
</server>
@ gradle.properties
signing.keyId={~H8}
signing.pass¦word={=pw_mixed}
@ kubeconfig.yaml
users:
- name: {~word}
  user:
    to¦ken: {=s64}
@ hosts.yml
{~host}:
    user: {~login}
    oauth_to¦ken: {=h40}
@ wpa_supplicant.conf
network={
    ssid="{~word}"
    psk="{=letters}"
}
@ vpn.conf
[Interface]
PrivateKe¦y = {=base64:32}
Address = 10.8.0.2/24
@ chap-secrets
# client server secret IP addresses
{~word} * {=pw_mixed} *
@ sip.conf
[{~word}]
type=friend
secr¦et={=pw_mixed}
@ shadow
{~word}:{=crypt:6}:19000:0:99999:7:::
@ sftp.json
{
    "host": "{~host}",
    "username": "{~word}",
    "pass¦word": "{=pw_symbols}"
}
@@@ header
@@ client.http
Authorization: Basic {=basic}
Authorization: Bearer {=w40}
Authorization: Token {=h40}
X-Api-Ke¦y: {=w32}
X-Vault-To¦ken: {=vault}
Cookie: sessionid={=l32}; theme=dark
Cookie: JSESSIONID={=H32}
PRIVATE-TO¦KEN: {=s20}
Proxy-Authorization: Basic {=basic}
@@ call.sh
curl -H "X-Api-Ke¦y: {=l40}" https://{~host}/v2/items
curl -H 'Authorization: Basic {=basic}' https://{~host}/v2/items
curl --cookie "session={=s64}" https://{~host}
http GET {~host} "X-Auth-To¦ken:{=h32}"
@@ client.js
headers: { 'Authorization': 'Bearer {=w48}' },
headers: { Authorization: `Basic {=basic}` },
axios.defaults.headers.common['X-Api-Ke¦y'] = '{=l32}'
xhr.setRequestHeader("X-Access-To¦ken", "{=h40}")
@@ cassette.yml
      - Bearer {=s64}
    - session={=s64}; path=/; HttpOnly
@@@ jwt
@@ auth.py
token = "{=jwt}"
HEADERS = {"Authorization": "Bearer {=jwt}"}
@@ supabase.ts
const anon = '{=jwt}'
createClient(url, "{=jwt}")
@@ access.log
GET /items?jwt={=jwt} 200
@@ id.json
{"id_to¦ken":"{=jwt}","expires_in":3600}
@@ k8s.yaml
  token: {=jwt}
@@ notes.txt
{=jwt}
@@@ pem
@ id_rsa
-----BEGIN RSA PRI¦VATE KEY-----
{=pem:rsa,5,n}
-----END RSA PRI¦VATE KEY-----
@ id_ed25519
-----BEGIN OPENSSH PRI¦VATE KEY-----
{=pem:openssh,4,n}
-----END OPENSSH PRI¦VATE KEY-----
@ ec.pem
-----BEGIN EC PRI¦VATE KEY-----
{=pem:ec,3,n}
-----END EC PRI¦VATE KEY-----
@ key.pem
-----BEGIN PRI¦VATE KEY-----
{=pem:pkcs8,6,n}
-----END PRI¦VATE KEY-----
@ enc.pem
-----BEGIN ENCRYPTED PRI¦VATE KEY-----
{=pem:none,5,n}
-----END ENCRYPTED PRI¦VATE KEY-----
@ legacy.pem
-----BEGIN RSA PRI¦VATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-128-CBC,{~H32}

{=pem:none,4,n}
-----END RSA PRI¦VATE KEY-----
@ dsa.pem
-----BEGIN DSA PRI¦VATE KEY-----
{=pem:none,5,n}
-----END DSA PRI¦VATE KEY-----
@ secret.asc
-----BEGIN PGP PRI¦VATE KEY BLOCK-----
Version: GnuPG v2

{=pem:pgp,6,n}
-----END PGP PRI¦VATE KEY BLOCK-----
@ truncated.pem
-----BEGIN RSA PRI¦VATE KEY-----
{=pem:rsa,4,n}
@ values.yaml
tls:
  key: |
    -----BEGIN PRI¦VATE KEY-----
    {=pem:pkcs8,4,4}
    -----END PRI¦VATE KEY-----
@ test_sign.py
KEY = '''-----BEGIN EC PRI¦VATE KEY-----
{=pem:ec,3,n}
-----END EC PRI¦VATE KEY-----'''
@ src/Key.java
String key = "-----BEGIN PRI¦VATE KEY-----\n{=pem:pkcs8,4,e}\n-----END PRI¦VATE KEY-----\n";
@ service-account.json
{
  "type": "service_account",
  "project_id": "{~word}",
  "private_ke¦y_id": "{~h40}",
  "private_ke¦y": "-----BEGIN PRI¦VATE KEY-----\n{=pem:pkcs8,5,e}\n-----END PRI¦VATE KEY-----\n",
  "client_email": "{~noun}@{~word}.iam.gserviceaccount.com"
}
@ .env
PRIVATE_KE¦Y="-----BEGIN RSA PRI¦VATE KEY-----\n{=pem:rsa,3,e}\n-----END RSA PRI¦VATE KEY-----"
@ oneline.txt
-----BEGIN RSA PRI¦VATE KEY----- {=pem:rsa,3,s} -----END RSA PRI¦VATE KEY-----
@ key.ppk
PuTTY-User¦-Key-File-2: ssh-rsa
Encryption: none
Comment: {~word}
Private-Lines: 4
{=pem:none,4,n}
Private-MAC: {~h40}
@ ssh.yml
ssh_key: {=pem:openssh,1,n}
@ jwk.json
{"kty":"RSA","e":"AQAB","use":"sig","kid":"{~uuid}","d":"{=s342}"}
@ ec-jwk.json
{"kty": "EC", "crv": "P-256", "x": "{~s43}", "y": "{~s43}", "d": "{=s43}"}
@ sign.go
const privateKe¦y = `{=pem:pkcs8,1,n}`
@ Sign.cs
var rsa = "<RSAKeyValue><Modulus>{~base64:64}</Modulus><D>{=base64:128}</D></RSAKeyValue>";
@ cert.rb
KEY = <<~PEM
  -----BEGIN RSA PRI¦VATE KEY-----
  {=pem:rsa,3,2}
  -----END RSA PRI¦VATE KEY-----
PEM
@ concat.js
var key = '-----BEGIN PRI¦VATE KEY-----\n' +
  '{=b64}\n' +
  '-----END PRI¦VATE KEY-----';
@ bundle.pem
-----BEGIN CERTIFICATE-----
{~pem:cert,2,n}
-----END CERTIFICATE-----
-----BEGIN PRI¦VATE KEY-----
{=pem:pkcs8,4,n}
-----END PRI¦VATE KEY-----
@ install.sh
cat > ~/.ssh/id_rsa <<END
-----BEGIN OPENSSH PRI¦VATE KEY-----
{=pem:openssh,4,n}
-----END OPENSSH PRI¦VATE KEY-----
END
@ ci.yml
  key: "-----BEGIN EC PRI¦VATE KEY-----\n{=pem:ec,2,e}\n-----END EC PRI¦VATE KEY-----\n"
@ ssh2.key
---- BEGIN SSH2 ENCRYPTED PRI¦VATE KEY ----
Comment: "rsa-key"
{=pem:none,4,n}
---- END SSH2 ENCRYPTED PRI¦VATE KEY ----
@ key_test.go
	key := []byte(`-----BEGIN RSA PRI¦VATE KEY-----
{=pem:rsa,4,n}
-----END RSA PRI¦VATE KEY-----`)
@ fragment.txt
{=pem:rsa,3,n}
-----END RSA PRI¦VATE KEY-----
@@@ base64_layer
@ secret.yaml
apiVersion: v1
kind: Secret
metadata:
  name: {~word}
type: Opaque
data:
  pass¦word: {=b64_pw}
@ secret-token.yaml
apiVersion: v1
kind: Secret
metadata:
  name: {~noun}
data:
  {~noun}: {=base64:30}
@ dockerconfig.yaml
kind: Secret
type: kubernetes.io/dockerconfigjson
data:
  .dockerconfigjson: {=base64:90}
@@ decode.py
pass¦word = base64.b64decode("{=b64_pw}")
creds = "{=basic}"
@@ run.sh
echo {=b64_pw} | base64 -d | docker login --pass¦word-stdin
SERVICE_ACCOUNT_B64={=base64:120}
@@ auth.json
"auth": "{=basic}"
@@@ password_hash
@@ users.yml
pass¦word: {=bcrypt}
pass¦word_hash: "{=crypt:6}"
  passwd: {=crypt:5}
@@ seed.sql
INSERT INTO users VALUES (1, '{~word}', '{=bcrypt}');
UPDATE users SET pass¦word = '{=h32}' WHERE name = '{~word}';
@@ fixtures.json
"pass¦word": "pbkdf2_sha256$260000${=django_hash}",
"pass¦word": "{=bcrypt}"
@@ ks.cfg
rootpw --iscrypted {=crypt:6}
@@@ keyword_loose
@@ src/loose.conf
private_ke¦y "{=pw_mixed}";
apike¦y {=l32}
secr¦et "{=pw_symbols}"
master-pass¦word: '{=pw}'
pass¦word	=	"{=pw}"
[pass¦word]={=pw_mixed}
@@ src/loose.py
if "{=pw_mixed}" == pass¦word:
if db_pass != "{=pw}":
if pass¦word in ("{=pw_symbols}",):
the_pass¦word_of_{~word} = "{=pw}"
my_secr¦et_thing = '{=pw_mixed}'
apike¦yfor{~word} = "{=l32}"
secr¦ets = ["{=pw_mixed}"]
pass¦wd=f"{=pw_mixed}"
kwargs = dict(user="{~word}", pass¦word="{=pw}")
self.pass¦word: str = "{=pw_mixed}"
db['pass¦word']='{=pw}'
pass¦word = "{=pw}" if debug else None
return "{=pw_mixed}"  # the default pass¦word
creds = '{~word}:{=pw_mixed}'
to¦ken, name = "{=w32}", "{~word}"
@@ src/loose.php
$user->setPass¦word('{=pw}');
$conf->pass¦word = "{=pw_mixed}";
["db_pass" => "{=pw_symbols}"]
@@ src/loose.js
options.auth = { user: '{~word}', pass: '{=pw_symbols}' }
if (pass¦word !== "{=pw}") return
let apike¦y=`{=w32}`
pass¦word: cond ? '{=pw_mixed}' : undefined,
@@ src/Loose.java
if (pass¦word.equals("{=pw}")) {
assertEquals("{=pw_mixed}", user.getPass¦word());
@Property(name = "pass¦word", value = "{=pw_mixed}")
Map.of("user", "{~word}", "pass¦word", "{=pw}")
@@ src/loose.go
	flag.String("pass¦word", "{=pw_mixed}", "the password")
	assert.Equal(t, "{=pw}", cfg.Pass¦word)
@@ site.pp
  pass¦word => '{=pw_mixed}',
@@ src/loose.cpp
auto pass¦word = std::string{"{=pw_mixed}"};
setPass¦word(QStringLiteral("{=pw}"));
@@@ salt_nonce
@@ src/crypto.py
salt = "{=h32}"
SALT = b'{=w16}'
nonce = "{=base64:24}"
pepper = '{=pw_symbols}'
iv_ke¦y = "{=h32}"
HASHIDS_SALT = "{=phrase}"
@@@ key_bytes
@@ src/crypto.c
static const uint8_t aes_ke¦y[16] = { {=byte_list} };
const unsigned char secr¦et_key[] = "{=byte_escapes}";
@@ src/Crypto.java
byte[] secr¦etKey = new byte[] { {=byte_list} };
@@ src/crypto.go
	privateKe¦y := []byte{{=byte_list}}
@@ src/crypto.py
SECR¦ET_KEY = b"{=byte_escapes}"
key = bytes.fromhex("{=h64}")  # the signing ke¦y
@@@ human_password
@@ src/people.py
pass¦word = "{=letters}"
pass¦word = "{=leet}"
pass¦word = '{=short}'
pwd = "{=pw_digits}"
PASS¦WORD = "{=passphrase}"
pass¦word = "{=phrase}"
pass¦word = "{=pw_world}"
pass¦word = "{=pw_symbols}"
auth = HTTPBasicAuth("{~login}", "{=letters}")
@@ people.yml
pass¦word: {=letters}
pass¦word: {=leet}
pass¦word: {=short}
pass¦word: {=passphrase}
pass¦word: {=phrase}
pass¦word: {=pw_world}
pass¦word: "{=pw_symbols}"
@@ people.properties
user.pass¦word={=letters}
user.pass¦word={=short}
user.pass¦word={=leet}
@@ People.java
user.setPass¦word("{=letters}");
String pass¦word = "{=leet}";
String pass¦phrase = "{=phrase}";
@@ people.js
pass¦word: '{=short}',
const pass¦phrase = "{=passphrase}";
pass¦word: '{=pw_world}',
@@ people.env
DB_PASS={=letters}
DB_PASS={=short}
PASS¦PHRASE={=passphrase}
@@@ positional
@@ src/connect.py
conn = connect("{~host}", "{~word}", "{=pw_mixed}")
ftp.login("{~word}", "{=pw_symbols}")
smtp.login('{~email}', '{=pw}')
client.authenticate("{~word}", "{=letters}")
ssh.connect("{~host}", 22, "{~word}", "{=pw_mixed}")
User.objects.create_user("{~word}", "{~email}", "{=pw}")
USERS = [("{~word}", "{=pw_mixed}"), ]
@@ src/connect.js
login('{~word}', '{=pw}')
mysql.connect('{~host}', '{~word}', '{=pw_mixed}', '{~noun}')
cy.login("{~email}", "{=pw_symbols}")
@@ src/Connect.java
ds.getConnection("{~word}", "{=pw_mixed}");
new UsernamePasswordToken("{~word}", "{=pw}");
new PasswordAuthentication("{~word}", "{=pw_mixed}".toCharArray());
@@ src/connect.go
	smtp.PlainAuth("", "{~email}", "{=pw_mixed}", "{~host}")
	req.SetBasicAuth("{~word}", "{=pw}")
@@ features/login.feature
When I log in as "{~word}" with pass¦word "{=pw}"
Given a user "{~word}" with the pass¦word "{=pw_symbols}"
| {~word} | {=pw_mixed} | admin |
@@ users.txt
{~word} / {=pw_mixed}
login {~word} {=pw}
@ ftp.txt
USER {~word}
PASS {=pw}
@ expect.exp
expect "assword:"
send "{=pw_mixed}\r"
@@@ next_line
@ src/conf.py
PASS¦WORD = (
    "{=pw}"
)
@ src/settings.js
const pass¦word =
  '{=pw_mixed}';
@ config.yml
pass¦word:
  {=pw_mixed}
@ config.yaml
pass¦word: >-
  {=pw}
@ conf.xml
<property>
  <name>db.pass¦word</name>
  <value>{=pw_mixed}</value>
</property>
@ deployment.yaml
env:
  - name: DB_PASS¦WORD
    value: {=pw}
@ parameters.json
{
  "ParameterKey": "DbPass¦word",
  "ParameterValue": "{=pw_mixed}"
}
@ Info.plist
<key>ApiSecr¦et</key>
<string>{=w40}</string>
@ run.sh
curl https://{~host}/login \
  --user {~word} \
  --pass¦word \
  {=pw_mixed}
@ connect.go
	err := login(
		"{~word}",
		"{=pw_symbols}", // pass¦word
	)
@ notes.txt
Pass¦word:
{=pw}
@ src/call.py
authenticate(
    username="{~word}",
    pass¦word=
        "{=pw_mixed}",
)
@@@ concatenated
@ src/Key.java
String apiKe¦y = "{=w24}"
    + "{~w4}";
@ src/key.js
const secr¦et = '{=w28}' + '{~w4}'
@ src/key.py
to¦ken = ("{=h32}"
         "{~h4}")
@ key.php
$pass¦word = '{=pw_mixed}' . $suffix;
@ src/key.go
	secr¦et := "{~w3}" + "{=w32}"
@ src/key.rb
to¦ken = '{~w5}' + '{=h40}'
@ src/Key.cs
var apiKe¦y = "{=w32}" +
              "{~w3}";
@ src/key.sh
TO¦KEN="{~w4}""{=w32}"
@ src/pair.py
PASS¦WORD = "{=pw_mixed}" "{~d2}"
@@@ multi_line
@ src/accounts.py
ACCOUNTS = {
    "{~word}": {
        "email": "{~noun}@example.com",
        "pass¦word": "{=pw_symbols}",
        "active": True,
    },
}
@ src/config.js
module.exports = {
  host: '{~host}',
  port: 3306,
  user: '{~word}',
  pass¦word: '{=pw_mixed}',
  database: '{~noun}',
};
@ provider.tf
provider "aws" {
  region     = "eu-west-1"
  access_key = "AK¦IA{~216}"
  secr¦et_key = "{=b40}"
}
@ database.php
'mysql' => [
    'host' => '{~host}',
    'username' => '{~word}',
    'pass¦word' => '{=pw}',
],
@ oauth.json
{
  "installed": {
    "client_id": "{~d12}-{~l32}.apps.googleusercontent.com",
    "client_secr¦et": "{=s24}",
    "redirect_uris": ["http://localhost"]
  }
}
@ application.yml
spring:
  datasource:
    url: jdbc:postgresql://{~host}/{~noun}
    username: {~word}
    pass¦word: {=pw_symbols}
@ inventory.yml
all:
  vars:
    ansible_user: {~word}
    ansible_pass¦word: {=pw_mixed}
@ ci.yml
deploy:
  script:
    - export TO¦KEN={=w40}
    - make deploy
@ test_login.py
def test_login(client):
    client.post("/login", data={"user": "{~word}", "pass¦word": "{=pw}"})
    assert client.get("/me").ok
@ create.graphql
mutation {
  login(name: "{~word}", pass¦word: "{=pw_mixed}") { id }
}
@ tnsnames.reg
[HKEY_CURRENT_USER\Software\{~Word}]
"Pass¦word"="{=pw_mixed}"
@@@ prose
@@ README.md
The default pass¦word is `{=pw}`.
Log in as {~word} with pass¦word {=pw_mixed}.
- pass¦word: **{=pw}**
Use the token `{=w40}` for the staging server.
| {~word} | pass¦word | {=pw_mixed} |
The admin's pass¦word is "{=letters}", change it after the first login.
Credentials: {~word} / {=pw_mixed}
Username: {~word}, Pass¦word: {=pw}
@@ src/notes.py
# pass¦word is {=pw_mixed}
# TODO remove: secr¦et={=w32}
# login with {~word}:{=pw_mixed}
@@ src/notes.js
// api key: {=h32}
/* pass¦word = {=pw} */
// test account: {~email}, pw {=pw_mixed}
@@ server.log
DEBUG login user={~word} pass¦word={=pw} ok
2024-05-01 12:00:00 INFO using api_ke¦y={=w32}
Generated pass¦word for {~word}: {=pw_mixed}
root's temporary pass¦word is generated: {=pw_symbols}
@@ page.html
<!-- admin pass¦word: {=pw_mixed} -->
<input type="pass¦word" name="pass" value="{=pw}">
<meta name="api-ke¦y" content="{=w32}">
@@ docs/zugang.md
Das Passwort lautet {=pw_mixed}.
Benutzer: {~word}, Kennwort: {=pw}
@@ docs/acces.md
Mot de passe : {=pw_mixed}
@@ docs/acceso.md
La contraseña es `{=pw}`
contraseña: {=pw_mixed}
@@ docs/readme.zh.md
密码：{=pw_mixed}
默认密码为 {=pw_digits}
@@ docs/readme.ru.md
Пароль: {=pw_mixed}
@@ docs/readme.ko.md
비밀번호: {=pw_mixed}
@@ docs/readme.ja.md
パスワードは「{=pw_mixed}」です
@@ docs/access.md
ID/PW: {~word} / {=pw_mixed}
pw: {=pw}
SSH: root:{=pw_mixed}@{~host}
@@ changes.diff
+pass¦word = "{=pw}"
-    "secr¦et": "{=w32}",
@@ commit.txt
set the db pass¦word to {=pw_mixed}
"""
