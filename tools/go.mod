module rolecall/tools

go 1.26.0

replace rolecall => ../
