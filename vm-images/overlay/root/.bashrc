# A terminal of the lab: `lab shell`.
PS1='\[\e[1m\]\u@\h\[\e[0m\]:\w\$ '
alias ls='ls --color=auto' ll='ls -l' ip='ip -color=auto'
