package main

import (
	"fmt"
	"os"
	"testing"
	"time"
)

func TestAccountsAreFoundByNameAndNumber(t *testing.T) {
	root := t.TempDir()
	os.Mkdir(root+"/etc", 0o755)
	write(t, root+"/etc/passwd", "root:x:0:0:r:/root:/bin/bash\n# comment:x:1:1::/:/bin/sh\nbroken line\nann:x:7:8:Ann,,:/home/ann:/bin/zsh\r\n"+
		"bad:x:-1:x::/:/x\n12:x:13:14::/n:/bin/sh\nhomeless:x:9:9:::\n")
	write(t, root+"/etc/group", "root:x:0:\nann:x:8:\na:x:20:bob,ann\nb:x:21: ann , bob\nc:x:22:annie\n")
	users := newAccounts(root)
	for name, want := range map[string]string{
		"ann": "{ann 7 8 /home/ann /bin/zsh [8 20 21]}", "7": "{ann 7 8 /home/ann /bin/zsh [8 20 21]}", "root": "{root 0 0 /root /bin/bash [0]}",
		"12": "{12 13 14 /n /bin/sh [14]}", "4000": "{4000 4000 4000 /  [4000]}", "homeless": "{homeless 9 9 /  [9]}",
	} {
		acc, err := users.find(name)
		if got := fmt.Sprint(acc); err != nil || got != want {
			t.Errorf("%s: %s %v, want %s", name, got, err, want)
		}
	}
	for _, name := range []string{"", "nobody-here", "comment", "bad", "-1", "4294967295", "99999999999"} {
		if acc, err := users.find(name); err == nil {
			t.Errorf("%q is %+v", name, acc)
		}
	}
	// A user added later is seen, also within the same second.
	time.Sleep(5 * time.Millisecond)
	write(t, root+"/etc/passwd", "late:x:77:77::/:/bin/sh\n")
	if acc, err := users.find("late"); err != nil || acc.UID != 77 {
		t.Errorf("%+v %v", acc, err)
	}
	if acc, err := newAccounts("/nowhere").find("root"); err != nil || acc.Home != "/root" {
		t.Errorf("%+v %v", acc, err)
	}
}

func TestTemplateEnvironment(t *testing.T) {
	env := templateEnv([]string{"PATH=/x", "PADDOCK_TEMPLATE_ENV_A=b=c", "PADDOCK_TEMPLATE_ENV_=x", "PADDOCK_TEMPLATE_ENV_E="})
	if fmt.Sprint(env) != "map[A:b=c E:]" {
		t.Error(env)
	}
}
