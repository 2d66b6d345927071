"""Personal data as it stands in repositories, and what only looks like it.

In:  nothing
Out: PERSONAL and IMPERSONAL, tables in the language of `template`; the second has no labelled values
"""

PERSONAL = r"""
@@@ email
@@ setup.py
author_email="{=email}",
__email__ = '{=email}'
maintainers = [("{~person}", "{=email}")]
ADMINS = [("{~person}", "{=email}")]
@@ package.json
  "author": "{~person} <{=email}> (https://{~host})",
  "email": "{=email:dots}",
{"name": "{~person}", "email": "{=email:plus}"}
@@ pyproject.toml
authors = [{name = "{~person}", email = "{=email}"}]
authors = ["{~person} <{=email:sub}>"]
@@ Cargo.toml
authors = ["{~person} <{=email:free}>"]
@@ pom.xml
<email>{=email}</email>
@@ debian/control
Maintainer: {~person} <{=email}>
@@ README.md
Questions? Write to {=email}.
[mail me](mailto:{=email:free})
Contact: <{=email:plus}>
Copyright (c) {~n:2005,2025} {~person} <{=email}>
* {~person} ({=email:sub})
@@ index.html
<a href="mailto:{=email}?subject=Hello">Mail</a>
<meta name="author" content="{~person}, {=email:rare}">
@@ config.yml
email: {=email}
  acme_email: "{=email:sub}"
notify: [{=email}]
git_user_email: '{=email:plus}'
@@ .env
ADMIN_EMAIL={=email}
MAIL_FROM="{~person} <{=email:rare}>"
@@ src/users.js
const support = '{=email}';
{ id: {~n:1,999}, name: "{~person}", email: "{=email:world}" },
expect(user.email).toBe('{=email:free}');
// see {=email} for the history of this
@@ src/Users.java
 * @author {~person} <{=email:sub}>
message.setFrom(new InternetAddress("{=email}"));
@@ src/users.go
	// Contact {=email:dots} before you change this.
	to := []string{"{=email}"}
@@ src/users.c
MODULE_AUTHOR("{~person} <{=email}>");
/* Written by {~person} <{=email:sub}>, {~n:1998,2020} */
@@ src/users.rb
  spec.email = ["{=email:free}"]
@@ src/users.php
$mail->addAddress('{=email:rare}', '{~person}');
@@ seed.sql
INSERT INTO users (id, email) VALUES ({~n:1,999}, '{=email}');
@@ users.csv
{~n:1,999},{~word},{=email:free},{~date}
@@ mail.log
{~date} {~time} postfix/smtp[{~n:100,9999}]: to=<{=email}>, relay={~host}, status=sent
login ok user={=email} in {~n:1,99} ms
@@ crontab
MAILTO={=email}
@@ .git/config
	email = {=email:free}
@@ zone.txt
@ IN TXT "v=DMARC1; rua=mailto:{=email}"
@@ CODEOWNERS
/docs/ {=email}
@@ messages.po
"Last-Translator: {~person} <{=email}>\n"
@@ urls.txt
https://{~host}/unsubscribe?email={=email}&id={~n:1,999}
ssh://{=email}:22
@@@ obfuscated
@@ AUTHORS
{~person} <{=obfuscated_at}>
{~person} ({=obfuscated_words})
@@ index.html
Mail: {=obfuscated_words}
<span>{=obfuscated_brackets}</span>
@@ src/doc.py
# maintainer: {=obfuscated_brackets}
"{~person}, {=obfuscated_at}"
@@@ trailer
@@ commit.txt
Signed-off-by: {~person} <{=email}>
Co-authored-by: {~person} <{=email:free}>
Reviewed-by: {~person} <{=email:sub}>
Reported-by: {~person} <{=email:dots}>
Acked-by: {~person} <{=email}>
Author: {~person} <{=email:plus}>
@@ 0001-fix.patch
From: {~person} <{=email}>
@@ .mailmap
{~person} <{~word}@example.org> <{=email}>
@@@ trailer_name
@@ commit.txt
Signed-off-by: {=person} <{~n:1000,99999}+{~word}@users.noreply.github.com>
Tested-by: {=person} <noreply@example.com>
Reviewed-by: {=person} <{~word}@example.org>
@@@ author_name
@@ src/Shape.java
 * @author {=person}
@@ src/shape.js
 * @author {=person}
@@ src/shape.php
 * @author    {=person}
@@ src/shape.py
__author__ = "{=person}"
:author: {=person}
@@ src/shape.swift
//  Created by {=person} on {~n:1,28}/{~n:1,12}/{~n:13,24}.
@@ src/shape.c
 * \author {=person}
@@@ ipv4
@@ config.yml
host: {=ipv4}
  - {=ipv4}
  server: "{=ipv4}:8080"
@@ .env
DB_HOST={=ipv4}
REDIS_URL=redis://{=ipv4}:6379/0
@@ src/net.py
HOST = "{=ipv4}"
sock.connect(("{=ipv4}", {~n:1024,65535}))
url = "http://{=ipv4}:8000/{~noun}"
ALLOWED_HOSTS = ["{=ipv4}", "localhost"]
# the old server was {=ipv4}
@@ src/net.go
	addr := "{=ipv4}:443"
@@ src/net.js
fetch('https://{=ipv4}/api/{~noun}')
const peers = ["{=ipv4}"]
@@ src/Net.java
InetAddress.getByName("{=ipv4}");
@@ src/net.c
inet_pton(AF_INET, "{=ipv4}", &addr.sin_addr);
@@ nginx.conf
    server {=ipv4}:{~n:1024,65535};
    allow {=ipv4};
    proxy_pass http://{=ipv4}:3000;
@@ iptables.sh
iptables -A INPUT -s {=ipv4} -j DROP
iptables -A INPUT -s {=ipv4}/32 -p tcp --dport 22 -j ACCEPT
ssh root@{=ipv4}
ping -c 3 {=ipv4}
scp app.jar {~word}@{=ipv4}:/srv
@@ main.tf
  cidr_blocks = ["{=ipv4}/32"]
@@ access.log
{=ipv4} - - [12/Mar/2024:{~time} +0000] "GET /{~noun} HTTP/1.1" 200 {~n:100,9999}
{~date} {~time} sshd[{~n:100,9999}]: Failed password for root from {=ipv4} port {~n:1024,65535} ssh2
client={=ipv4}, status=403
X-Forwarded-For: {=ipv4}
@@ hosts
{=ipv4}    {~word}.internal
@@ zone.txt
www IN A {=ipv4}
v=spf1 ip4:{=ipv4} -all
@@ inventory.ini
{~word} ansible_host={=ipv4}
@@ README.md
The demo runs on http://{=ipv4}:8080/.
@@ data.json
{"ip": "{=ipv4}", "country": "{~Z2}"}
["{~word}", "{=ipv4}", {~n:1,99}]
@@@ ipv6
@@ config.yml
host: "{=ipv6}"
  address: {=ipv6:short}
@@ src/net.py
HOST = "{=ipv6:short}"
url = "http://[{=ipv6}]:8080/"
ipaddress.ip_address("::ffff:{=ipv4}")
# reachable at {=ipv6:short}
@@ src/net.go
	addr := "[{=ipv6:short}]:443"
@@ nginx.conf
    listen [{=ipv6}]:80;
    allow {=ipv6:short};
@@ zone.txt
www IN AAAA {=ipv6:short}
@@ access.log
{=ipv6} - - [12/Mar/2024:{~time} +0000] "GET / HTTP/2" 200
client {=ipv6:short}#{~n:1024,65535}: query
@@ rules.sh
ip6tables -A INPUT -s {=ipv6:short} -j ACCEPT
ip -6 route add default via {=ipv6:short} dev eth0
ping6 {=ipv6}%eth0
@@ main.tf
  ipv6_cidr_blocks = ["{=ipv6:short}/128"]
@@ hosts
{=ipv6:short}    {~word}.internal
@@@ home_directory
@@ trace.txt
  File "/home/{=login}/src/{~word}/{~noun}.py", line {~n:1,999}, in main
  File "C:\Users\{=login}\AppData\Local\Programs\Python\lib\{~noun}.py", line {~n:1,99}
    at Object.<anonymous> (/Users/{=login}/code/{~word}/index.js:{~n:1,99}:{~n:1,99})
/home/{=login}/go/src/{~word}/main.go:{~n:1,999} +0x{~h3}
@@ Makefile
PREFIX = /home/{=login}/local
include /Users/{=login}/{~word}/common.mk
@@ src/paths.py
DATA = "/home/{=login}/data/{~noun}.csv"
PATH = r"C:\Users\{=login}\Documents\{~word}"
path = "C:\\Users\\{=login}\\Desktop\\{~noun}.txt"
sys.path.insert(0, "/Users/{=login}/projects/{~word}")
open('/mnt/c/Users/{=login}/{~noun}.json')
# run it from /home/{=login}/{~word}
@@ src/paths.js
const root = '/Users/{=login}/dev/{~word}';
require("C:/Users/{=login}/{~word}/{~noun}.js")
@@ settings.json
"python.pythonPath": "/home/{=login}/.venv/bin/python",
"path": "C:\\Users\\{=login}\\scoop\\apps\\{~word}",
"uri": "file:///home/{=login}/{~word}/{~noun}.md"
"uri": "file:///C:/Users/{=login}/{~word}"
@@ run.sh
cd /home/{=login}/{~word} && make
export PATH=/Users/{=login}/bin:$PATH
rsync -a /home/{=login}/ backup:/srv
@@ cell.ipynb
      "\u001b[0;32m/home/{=login}/miniconda3/lib/python3.9/site-packages/{~word}/{~noun}.py\u001b[0m",
@@ app.service
WorkingDirectory=/home/{=login}/{~word}
@@ App.csproj
<HintPath>C:\Users\{=login}\.nuget\packages\{~word}.dll</HintPath>
@@ build.log
Building in /Users/{=login}/Library/Developer/Xcode/DerivedData/{~Word}-{~z28}
@@@ phone
@@ index.html
<a href="tel:{=phone:e164}">Call</a>
Phone: {=phone:us}
@@ README.md
Call {=phone} in an emergency.
Tel. {=phone}
@@ src/people.py
phone = "{=phone:e164}"
{"name": "{~person}", "phone": "{=phone:local}"},
mobile = "{=phone}"
# call {~person} at {=phone:us}
@@ contacts.vcf
TEL;TYPE=CELL:{=phone:e164}
@@ contacts.yml
phone: "{=phone}"
fax: {=phone:us}
@@ people.js
phoneNumber: '{=phone:e164}',
whatsapp: "https://wa.me/{=wa_number}"
"""

IMPERSONAL = r"""
@@@ version
@@ setup.py
version = "{~n:1,20}.{~n:0,30}.{~n:0,30}.{~n:0,99}"
VERSION = ({~n:1,9}, {~n:0,9}, {~n:0,9}, {~n:0,9})
@@ AssemblyInfo.cs
[assembly: AssemblyVersion("{~n:1,20}.{~n:0,30}.{~n:0,300}.{~n:0,99}")]
@@ App.csproj
<PackageReference Include="{~Word}" Version="{~n:1,20}.{~n:0,30}.{~n:0,30}.{~n:0,99}" />
@@ package.json
"chrome": ">={~n:60,120}.0.{~n:1000,6000}.{~n:10,200}",
"{~word}": "{~n:1,9}.{~n:0,9}.{~n:0,9}-beta.{~n:1,9}",
@@ headers.txt
Mozilla/5.0 (X11; Linux x86_64) Chrome/{~n:60,120}.0.{~n:3000,6000}.{~n:10,200} Safari/537.36
@@ CHANGELOG.md
## {~n:1,20}.{~n:0,30}.{~n:0,30}.{~n:0,9} ({~date})
see section {~n:1,9}.{~n:1,9}.{~n:1,9}.{~n:1,9} of the standard
Table {~n:1,20}.{~n:1,20}.{~n:1,20}.{~n:1,20} lists the codes
@@ pom.xml
<version>{~n:1,20}.{~n:0,30}.{~n:0,30}.{~n:0,99}</version>
@@ build.log
Installing {~word} {~n:1,20}.{~n:0,30}.{~n:0,30}.{~n:0,99}
{~word}-{~n:1,20}.{~n:0,30}.{~n:0,30}.{~n:0,99}-py3-none-any.whl
@@@ oid
@@ mib.txt
{~word}OID = "1.3.6.1.4.1.{~n:1,9999}.{~n:1,99}.{~n:1,9}"
snmpget -v2c -c public localhost 1.3.6.1.2.1.1.{~n:1,9}.0
@@ src/oids.go
	oid := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, {~n:1,20}}
"2.5.29.{~n:1,60}": "{~word}",
2.16.840.1.101.3.4.2.{~n:1,9}
@@@ special_ipv4
@@ config.yml
host: 127.0.0.1
bind: 0.0.0.0:{~n:1024,65535}
address: 192.168.{~n:0,255}.{~n:1,254}
  - 10.{~n:0,255}.{~n:0,255}.{~n:1,254}
gateway: 172.{~n:16,31}.{~n:0,255}.1
broadcast: 255.255.255.255
netmask: 255.255.{~n:0,255}.0
@@ src/net.py
HOST = "192.0.2.{~n:1,254}"
HOST = "198.51.100.{~n:1,254}"
HOST = "203.0.113.{~n:1,254}"
DNS = ["8.8.8.8", "1.1.1.1"]
resolvers = "9.9.9.9,8.8.4.4"
METADATA = "http://169.254.169.254/latest/meta-data/"
MULTICAST = "224.0.0.{~n:1,254}"
ip = "127.{~n:0,9}.0.{~n:1,9}"
url = "http://10.0.{~n:0,255}.{~n:1,254}:8080"
@@ main.tf
  cidr_block = "10.{~n:0,255}.0.0/16"
  cidr_blocks = ["0.0.0.0/0"]
  destination = "100.64.0.0/10"
@@ Dockerfile
CMD ["gunicorn", "-b", "0.0.0.0:{~n:1024,65535}", "app"]
@@ hosts
127.0.0.1 localhost {~word}
127.0.1.1 {~word}
@@@ special_ipv6
@@ hosts
::1 localhost ip6-localhost
ff02::1 ip6-allnodes
fe00::0 ip6-localnet
@@ src/net.py
HOST = "::1"
HOST = "::"
addr = "2001:db8::{~n:1,9999}"
addr = "2001:db8:{~h4}:{~h4}::1"
url = "http://[::1]:{~n:1024,65535}/"
link = "fe80::{~n:1,9}{~h3}:{~n:1,9}{~h3}%eth0"
local = "fd{~h2}:{~n:1,9}{~h3}:{~n:1,9}{~h3}::1"
mapped = "::ffff:127.0.0.1"
resolver = "2001:4860:4860::8888"
@@ nginx.conf
    listen [::]:80 default_server;
@@ main.tf
  ipv6_cidr_blocks = ["::/0"]
@@@ mail_like
@@ package.json
"{~word}": "npm:@{~word}/{~noun}@{~n:1,9}.{~n:0,9}.{~n:0,9}",
npm install {~word}@{~n:1,9}.{~n:0,9}.{~n:0,9}
"packageManager": "pnpm@{~n:7,9}.{~n:0,9}.{~n:0,9}",
@@ assets.json
"icon": "{~word}@2x.png",
"{~noun}@3x.jpg"
@@ .git/config
	url = git@github.com:{~word}/{~noun}.git
	url = git@{~host}:{~word}/{~noun}.git
	url = ssh://git@{~host}/{~word}/{~noun}.git
@@ ci.yml
      - uses: docker://ghcr.io/{~word}/{~noun}@sha256:{~h64}
      - uses: {~word}/{~noun}@v{~n:1,9}.{~n:0,9}
@@ commit.txt
Co-authored-by: dependabot[bot] <{~d8}+dependabot[bot]@users.noreply.github.com>
Author: GitHub <noreply@github.com>
From: no-reply@{~word}.com
@@ src/mail.py
email = "user@example.com"
email = "{~word}.{~noun}@example.org"
author = "{~Word} Bot <{~word}@example.net>"
to = "{~word}@{~noun}.test"
address = "root@localhost"
send("admin@{~noun}.invalid")
placeholder="you@company.example"
@@ src/shape.py
    @app.route("/{~noun}")
@pytest.mark.parametrize
result = left@right.T
y = x @ w.T + b
@@ src/shape.ts
@Component({ selector: 'app-{~word}' })
import {{~Word}} from '@{~word}/{~noun}';
@@ src/Shape.java
@Override public String toString() { return "{~word}@" + hashCode(); }
 * @param {~word} the {~noun}
java.lang.Object@{~h8}
@@ style.scss
@media (min-width: {~n:300,1200}px) { @include {~word}; }
@@ run.sh
ssh $USER@$HOST
scp file user@host:/tmp
systemctl start getty@tty1.service
@@ src/handles.md
Follow @{~word}{~noun} for news.
https://{~host}/@{~word}/{~noun}
@@@ colon_like
@@ src/scope.cpp
std::vector<{~word}::{~noun}> a = ns::b::c();
{~word}::{~noun}::dead::beef();
@@ src/slice.py
x[::2], y[::-1], z[1::3]
a[b:c, ::d]
time = "{~time}"
@@ src/mod.rs
use crate::{~word}::{~noun}::abc;
@@ net.txt
link/ether {~h2}:{~h2}:{~h2}:{~h2}:{~h2}:{~h2} brd ff:ff:ff:ff:ff:ff
SHA1 Fingerprint={~H2}:{~H2}:{~H2}:{~H2}:{~H2}:{~H2}:{~H2}:{~H2}:{~H2}:{~H2}
{~date} {~time},{~d3} INFO ready
00000010: {~h4} {~h4} {~h4} {~h4} {~h4} {~h4} {~h4} {~h4}  ................
@@ devices.yml
mac: "{~h2}:{~h2}:{~h2}:{~h2}:{~h2}:{~h2}"
guid: {~h2}:{~h2}:{~h2}:{~h2}:{~h2}:{~h2}:{~h2}:{~h2}
pci: 0000:{~h2}:{~h2}.0
@@ style.css
a::before { content: "" } li::after, p::first-line {}
@@ app.rb
{~Word}::{~Word}::Error
@@@ home_like
@@ run.sh
cd /home/$USER/{~word}
ls /home/user/{~noun}
cd ~/{~word} && ls ~root
export HOME=/home/runner/work/{~word}/{~word}
chown -R node:node /home/node/app
sudo -u ubuntu ls /home/ubuntu
cp {~word} /home/vagrant/
echo /Users/Shared/{~word}
@@ src/paths.py
path = r"C:\Users\Public\Documents"
path = "C:\\Users\\%USERNAME%\\{~word}"
path = os.path.join("/home", user, "{~noun}")
path = f"/home/{user}/{~word}"
path = "/Users/<username>/{~word}"
path = "/home/username/{~word}"
@@ routes.js
app.get('/users/:id/{~noun}', show);
fetch(`/api/users/${id}`)
GET /users/{~n:1,999}/{~noun}
'/home/index', '/home/about'
@@ Dockerfile
WORKDIR /home/app
RUN useradd -m -d /home/jovyan jovyan
@@@ number_like
@@ data.py
isbn = "978-3-16-{~d6}-{~d1}"
order_id = {~d10}
timestamp = {~n:1000000000,1999999999}
date = "{~date}"
serial = "{~d3}-{~d4}-{~d4}-{~d2}"
phone_regex = r"^\+?1?\d{9,15}$"
lat, lng = {~n:10,80}.{~d6}, -{~n:10,120}.{~d6}
card = "0000 0000 0000 0000"
width = {~d7}.{~d3}
ids = [{~d10}, {~d10}, {~d10}]
issue = "#{~n:1000,99999}"
build = "{~n:2012,2025}{~n:10,12}{~n:10,28}.{~n:1,99}"
range = "{~d3}-{~d4}"
@@ data.csv
{~d10},{~d10},{~n:1,99}.{~d2}
{~date} {~time};{~d6}
@@ form.html
<input type="tel" placeholder="+1 (555) 555-0100" pattern="[0-9]{3}-[0-9]{4}">
<span class="phone">555-01{~d2}</span>
@@ vector.svg
<path d="M{~d3}-{~d3}-{~d4}l{~d2}.{~d2}-{~d3}"/>
@@@ name_like
@@ src/shape.py
__author__ = "The {~Word} developers"
# author: see AUTHORS
:author: {~Word} Team
@@ src/Shape.java
 * @author the {~Word} project
@@ index.html
<meta name="author" content="{~Word} contributors">
@@ LICENSE
Copyright (c) {~n:2005,2025} The {~Word} Authors
Copyright {~n:2005,2025} {~Word} Inc. and contributors
"""
